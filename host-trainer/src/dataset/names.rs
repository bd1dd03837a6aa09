//! What names of folders and files say: which folder has the good images, which has the masks, and
//! whose mask a file is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Names of a folder of good images, in lower case and without blanks and separators. `good` is
/// MVTec AD's; the others are what people write instead, and mean nothing else.
const GOOD: [&str; 14] = [
    "good",
    "goods",
    "goodparts",
    "goodimages",
    "ok",
    "okay",
    "okparts",
    "io",
    "gut",
    "normal",
    "defectfree",
    "nodefect",
    "nodefects",
    "nondefective",
];
/// Names of a folder of masks, likewise, the best known first.
const MASKS: [&str; 8] = [
    "groundtruth",
    "gt",
    "mask",
    "masks",
    "label",
    "labels",
    "annotation",
    "annotations",
];
/// What the name of a mask has beside its image's, in lower case.
const AFFIXES: [&[u8]; 8] = [
    b"ground_truth",
    b"groundtruth",
    b"segmentation",
    b"label",
    b"mask",
    b"anno",
    b"seg",
    b"gt",
];

/// A name in lower case without blanks and separators; `None` if it is not UTF-8.
fn normalised(name: &OsStr) -> Option<String> {
    let text = name.to_str()?.to_lowercase();
    let kept = text
        .chars()
        .filter(|c| !c.is_whitespace() && !"_-.".contains(*c));
    Some(kept.collect())
}

/// Whether a folder of this name has good images: `good`, or a name that means the same.
pub(super) fn means_good(name: &OsStr) -> bool {
    normalised(name).is_some_and(|name| GOOD.contains(&name.as_str()))
}

/// Whether a name is but a letter away from `good`, as a slip of the keyboard is.
pub(super) fn resembles_good(name: &OsStr) -> bool {
    let close = |name: String| strsim::damerau_levenshtein(&name, "good") <= 1;
    normalised(name).is_some_and(close)
}

/// Whether a folder of this name has masks: the lower, the better known the name.
pub(super) fn mask_folder_rank(name: &OsStr) -> Option<usize> {
    let name = normalised(name)?;
    MASKS.iter().position(|known| *known == name)
}

/// Whether two names differ at most in case and in blanks around them.
pub(super) fn same_but_for_case(a: &OsStr, b: &OsStr) -> bool {
    let folded = |name: &OsStr| match name.to_str() {
        Some(text) => text.trim().to_lowercase().into_bytes(),
        None => name.as_bytes().to_ascii_lowercase(),
    };
    folded(a) == folded(b)
}

/// The name of the image that a mask called `stem` (without its ending) belongs to: what is left
/// without `_mask` and the like, in any case, with any separator, in front or behind. `None` if the
/// name says nothing of a mask.
pub(super) fn image_of_mask(stem: &OsStr) -> Option<&OsStr> {
    let bytes = stem.as_bytes();
    for affix in AFFIXES {
        // `000mask` is a mask too, but `weight` is no `weigh` with a `t`.
        let alone = affix == b"mask";
        if bytes.len() > affix.len() {
            let (base, end) = bytes.split_at(bytes.len() - affix.len());
            if end.eq_ignore_ascii_case(affix)
                && let Some(base) = without_separator(base, alone)
            {
                return Some(OsStr::from_bytes(base));
            }
            let (start, base) = bytes.split_at(affix.len());
            if start.eq_ignore_ascii_case(affix)
                && let [b'_' | b'-' | b'.' | b' ', base @ ..] = base
                && !base.is_empty()
            {
                return Some(OsStr::from_bytes(base));
            }
        }
    }
    None
}

/// A name without the separator at its end. Without a separator it is `None`, unless it need not
/// have one.
fn without_separator(base: &[u8], optional: bool) -> Option<&[u8]> {
    let rest = match base {
        [rest @ .., b'_' | b'-' | b'.' | b' '] => rest,
        _ if optional => base,
        _ => return None,
    };
    (!rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_good_folders_are_known_and_defects_are_not() {
        for name in [
            "good",
            "Good",
            "GOOD",
            "OK",
            "ok",
            "good ",
            "Normal",
            "defect-free",
            "I.O.",
        ] {
            assert!(means_good(OsStr::new(name)), "{name}");
        }
        for name in [
            "not good", "bad", "cut", "nok", "NG", "abnormal", "wood", "", "gold",
        ] {
            assert!(!means_good(OsStr::new(name)), "{name}");
        }
        for name in ["goood", "god", "Gpod", "godo"] {
            assert!(resembles_good(OsStr::new(name)), "{name}");
        }
        assert!(!resembles_good(OsStr::new("scratch")));
        assert!(!means_good(OsStr::from_bytes(b"g\xf6od")));
    }

    #[test]
    fn folders_of_masks_are_known() {
        for name in [
            "ground_truth",
            "Ground_Truth",
            "groundtruth",
            "gt",
            "GT",
            "masks",
            "Mask",
        ] {
            assert!(mask_folder_rank(OsStr::new(name)).is_some(), "{name}");
        }
        assert!(mask_folder_rank(OsStr::new("test")).is_none());
    }

    proptest! {
        #[test]
        fn a_masks_name_leads_to_its_image(
            stem in "[a-z0-9äж]{1,8}",
            affix in prop::sample::select(vec!["mask", "Mask", "MASK", "gt", "GT", "label", "Seg",
                "ground_truth", "groundtruth"]),
            separator in prop::sample::select(vec!["_", "-", ".", " "]),
            before in any::<bool>(),
        ) {
            let known = AFFIXES.contains(&stem.as_bytes());
            prop_assume!(!known && image_of_mask(OsStr::new(&stem)).is_none());
            let name = if before {
                format!("{affix}{separator}{stem}")
            } else {
                format!("{stem}{separator}{affix}")
            };
            prop_assert_eq!(image_of_mask(OsStr::new(&name)), Some(OsStr::new(&stem)));
        }

        #[test]
        fn any_bytes_are_names(bytes in prop::collection::vec(1u8.., 0..12)) {
            let name = OsStr::from_bytes(&bytes);
            if let Some(image) = image_of_mask(name) {
                prop_assert!(!image.is_empty() && image.len() < name.len());
            }
            means_good(name);
            resembles_good(name);
        }
    }

    #[test]
    fn names_that_say_nothing_of_a_mask() {
        for name in [
            "000", "weight", "mask", "_mask", "unlabel", "gt", "damaskus",
        ] {
            assert_eq!(image_of_mask(OsStr::new(name)), None, "{name}");
        }
        assert_eq!(image_of_mask(OsStr::new("7mask")), Some(OsStr::new("7")));
        let other = OsStr::from_bytes(b"l\xf6t_mask");
        assert_eq!(image_of_mask(other), Some(OsStr::from_bytes(b"l\xf6t")));
    }
}
