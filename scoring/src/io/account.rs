//! What a command did with the images of a folder: how many it used, and which it left out and why.

use std::path::Path;

use serde::Serialize;

use super::listing::Listing;
use super::text::path_text;

/// Most files that an account names. The others are only counted.
const LISTED: usize = 100;

/// The account of a set of images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageAccount {
    /// Images used.
    pub used: usize,
    /// Images that cannot be read.
    pub unreadable: usize,
    /// Images that are smaller than a tile.
    pub too_small: usize,
    /// Hidden images and folders.
    pub hidden: usize,
    /// Images in folders below those that are read.
    pub nested: usize,
    /// Images that belong to no part of the data set's layout.
    pub stray: usize,
    /// Pictures of formats that are not read.
    pub unsupported: usize,
    /// Images used whose pixels are those of another one.
    pub copies: usize,
    /// Images used that were turned as their file says (EXIF or TIFF orientation).
    pub orientation_applied: usize,
    /// Pages of files with several that were not read.
    pub pages_ignored: usize,
    /// The files left out, at most 100.
    pub left_out: Vec<LeftOut>,
    /// Number of files left out that are not named.
    pub left_out_unnamed: usize,
}

/// A file or folder left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The file or folder.
    pub file: String,
    /// Why.
    pub reason: String,
}

impl ImageAccount {
    /// Names a file that is left out. The caller counts it.
    pub fn name(&mut self, file: &Path, reason: impl Into<String>) {
        if self.left_out.len() >= LISTED {
            self.left_out_unnamed += 1;
            return;
        }
        self.left_out.push(LeftOut {
            file: path_text(file),
            reason: reason.into(),
        });
    }

    /// Counts and names an image that cannot be read.
    pub fn unreadable(&mut self, file: &Path, reason: impl Into<String>) {
        self.unreadable += 1;
        self.name(file, reason);
    }

    /// Counts and names an image that is smaller than a tile.
    pub fn too_small(&mut self, file: &Path, reason: impl Into<String>) {
        self.too_small += 1;
        self.name(file, reason);
    }

    /// Counts and names what a folder has beside the images that are read.
    pub fn beside(&mut self, listing: &Listing) {
        self.hidden += listing.hidden.len();
        for path in &listing.hidden {
            self.name(path, "hidden, or made by another program for itself");
        }
        self.unsupported += listing.unsupported.len();
        for path in &listing.unsupported {
            self.name(path, "not a PNG, JPEG, BMP or TIFF");
        }
    }

    /// Counts and names a folder below one that is read, with its number of images.
    pub fn nested(&mut self, folder: &Path, images: usize) {
        if images > 0 {
            self.nested += images;
            self.name(
                folder,
                format!("{} in a folder below", counted(images, "image")),
            );
        }
    }

    /// Counts and names an image that belongs to no part of the layout.
    pub fn stray(&mut self, file: &Path, reason: impl Into<String>) {
        self.stray += 1;
        self.name(file, reason);
    }

    /// Images that could have been used and were not, because they cannot be read or are too small.
    pub fn unusable(&self) -> usize {
        self.unreadable + self.too_small
    }

    /// The counts in words: used ones, and the others that are not 0.
    pub fn in_words(&self) -> String {
        let mut text = format!("{} used", counted(self.used, "image"));
        let others = [
            (self.unreadable, "unreadable"),
            (self.too_small, "too small"),
            (self.hidden, "hidden"),
            (self.nested, "in folders below, not read"),
            (self.stray, "outside the layout, not read"),
            (self.unsupported, "of other formats, not read"),
            (self.copies, "with the pixels of another"),
            (self.orientation_applied, "turned as their files say"),
            (self.pages_ignored, "further pages not read"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!(", {count} {what}");
        }
        text
    }

    /// One line for each of the first `most` files left out, and one for the rest.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let named = self.left_out.iter().take(most);
        let mut lines: Vec<String> = named
            .map(|left| format!("left out {}: {}", left.file, left.reason))
            .collect();
        let more = self.left_out.len().saturating_sub(most) + self.left_out_unnamed;
        if more > 0 {
            lines.push(format!("left out {more} more"));
        }
        lines
    }
}

/// A number with its noun, in the plural unless it is 1.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_is_said_and_the_list_is_bounded() {
        let mut account = ImageAccount {
            used: 1,
            ..ImageAccount::default()
        };
        assert_eq!(account.in_words(), "1 image used");
        assert!(account.lines(10).is_empty());
        for number in 0..150 {
            account.unreadable(Path::new(&format!("{number}.png")), "broken");
        }
        account.nested(Path::new("batch"), 3);
        account.nested(Path::new("empty"), 0);
        assert_eq!(
            account.in_words(),
            "1 image used, 150 unreadable, 3 in folders below, not read"
        );
        assert_eq!(
            (account.left_out.len(), account.left_out_unnamed),
            (100, 51)
        );
        let lines = account.lines(2);
        assert_eq!(lines[0], "left out 0.png: broken");
        assert_eq!(lines[2], "left out 149 more");
    }
}
