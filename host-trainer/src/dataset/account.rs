//! The account of a data set: what a command used of it, what it left out and why, and what looks
//! wrong. One structure for all commands, filled by the finder, the survey and the masks.

use std::collections::BTreeMap;

use scoring::io::account::{ImageAccount, counted};
use serde::Serialize;

/// The account of a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// The images.
    #[serde(flatten)]
    pub images: ImageAccount,
    /// The folders whose images were taken as good ones. Empty if there are none.
    pub good_folders: Vec<String>,
    /// Number of images of each kind, `good` among them; empty unless the set is labelled.
    pub kinds: BTreeMap<String, usize>,
    /// The masks; `None` unless the set is labelled.
    pub masks: Option<MaskAccount>,
    /// Bits of the values in 16-bit files, if there are such files.
    pub bits: Option<u8>,
    /// What looks wrong, or makes the result say less.
    pub warnings: Vec<String>,
}

/// The account of a data set's masks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MaskAccount {
    /// Masks that belong to an image.
    pub matched: usize,
    /// Masks that belong to no image.
    pub unmatched: usize,
    /// Defect images without a mask.
    pub images_without: usize,
    /// Masks of defect images that mark nothing.
    pub empty: usize,
    /// Masks that mark nearly everything.
    pub nearly_everything: usize,
    /// Masks of other values than 0 and white.
    pub odd_values: usize,
    /// What those values were taken to mean, and how many masks have them.
    pub conventions: BTreeMap<String, usize>,
    /// Defect regions too small or too thin for the pixels of the anomaly map, of which each counts
    /// as the map's pixels that it touches.
    pub small_regions: usize,
}

/// Most conventions and kinds that the account names in its line.
const NAMED: usize = 4;

impl Account {
    /// The account in one line.
    pub fn in_words(&self) -> String {
        let mut text = self.images.in_words();
        if !self.kinds.is_empty() {
            let kinds = self.kinds.iter().take(NAMED);
            let kinds: Vec<String> = kinds
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            text += &format!("; kinds: {}", kinds.join(", "));
            if self.kinds.len() > NAMED {
                text += &format!(" and {} more", self.kinds.len() - NAMED);
            }
        }
        if let Some(masks) = &self.masks {
            text += &format!("; masks: {}", masks.in_words());
        }
        if let Some(bits) = self.bits.filter(|bits| *bits < 16) {
            text += &format!("; 16-bit files with values of {bits} bits");
        }
        text
    }

    /// One line for each warning, and for the first `most` of the files left out.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut lines = self.images.lines(most);
        lines.extend(
            self.warnings
                .iter()
                .map(|warning| format!("warning: {warning}")),
        );
        lines
    }

    /// Adds a warning.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

impl MaskAccount {
    fn in_words(&self) -> String {
        let mut text = format!("{} matched", self.matched);
        let others = [
            (self.unmatched, "of no image"),
            (self.empty, "empty"),
            (self.nearly_everything, "marking nearly everything"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!(", {count} {what}");
        }
        if self.odd_values > 0 {
            let named = self.conventions.iter().take(NAMED);
            let named: Vec<String> = named
                .map(|(what, count)| format!("{what}: {count}"))
                .collect();
            text += &format!(
                ", {} of other values ({})",
                self.odd_values,
                named.join("; ")
            );
        }
        if self.images_without > 0 {
            text += &format!(", {} without", counted(self.images_without, "defect image"));
        }
        if self.small_regions > 0 {
            text += &format!(
                ", {} smaller than the map's pixels",
                counted(self.small_regions, "region")
            );
        }
        text
    }
}

/// The first of several names, and how many more there are.
pub(super) fn named(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_there_is() {
        let mut account = Account::default();
        account.images.used = 8;
        account.images.hidden = 1;
        account.kinds = [("cut", 4), ("good", 4)]
            .map(|(k, n)| (k.to_owned(), n))
            .into();
        account.masks = Some(MaskAccount {
            matched: 3,
            unmatched: 1,
            images_without: 1,
            odd_values: 3,
            conventions: [("values 0 and 1".to_owned(), 3)].into(),
            ..MaskAccount::default()
        });
        account.bits = Some(12);
        account.warn("look");
        assert_eq!(
            account.in_words(),
            "8 images used, 1 hidden; kinds: cut 4, good 4; masks: 3 matched, 1 of no image, 3 of \
             other values (values 0 and 1: 3), 1 defect image without; 16-bit files with values of \
             12 bits"
        );
        assert_eq!(account.lines(3), ["warning: look"]);
        let json = serde_json::to_value(&account).unwrap();
        assert_eq!(
            (&json["used"], &json["masks"]["matched"]),
            (&8.into(), &3.into())
        );
    }
}
