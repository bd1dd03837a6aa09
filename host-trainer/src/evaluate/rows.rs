//! The report's frames, and which of them are shown if there is no room for all: as many wrong
//! verdicts as possible, and right ones of every kind.
//!
//! Only frames that are shown keep their pictures, so that memory does not grow with the data set.

use std::collections::BTreeMap;

use image::RgbImage;
use scoring::inspect::verdict::Verdict;

/// One frame in the report.
#[derive(Debug, Clone)]
pub struct ReportRow {
    /// Its kind of defect, or `good`.
    pub kind: String,
    /// Its file name.
    pub name: String,
    /// Its score.
    pub score: f32,
    /// The verdict, if the package has a threshold.
    pub verdict: Option<Verdict>,
    /// Number of regions above the threshold.
    pub regions: usize,
    /// Whether it is labelled defective.
    pub defect: bool,
    /// Whether all of its defects lie outside of the inspected part.
    pub outside: bool,
    /// Its pictures.
    pub pictures: Pictures,
}

impl ReportRow {
    /// Whether the verdict contradicts the label: a false reject or a miss.
    pub fn is_wrong(&self) -> bool {
        is_wrong(self.verdict, self.defect, self.outside)
    }
}

/// Whether a verdict contradicts the label. None does where all defects lie outside of the inspected
/// part.
pub(super) fn is_wrong(verdict: Option<Verdict>, defect: bool, outside: bool) -> bool {
    match verdict {
        _ if outside => false,
        Some(Verdict::Ng) => !defect,
        Some(Verdict::Ok) => defect,
        None => false,
    }
}

/// A frame's pictures, at the size of the report.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// The frame as captured.
    pub input: RgbImage,
    /// The anomaly map as a heat map.
    pub heat: RgbImage,
    /// The frame with everything above the threshold in red, if there is a threshold.
    pub overlay: Option<RgbImage>,
    /// The ground truth with defects in white, if there is one.
    pub truth: Option<RgbImage>,
}

/// The frames kept for the report.
#[derive(Debug)]
pub(super) struct RowSelection {
    /// Most rows that are kept.
    capacity: usize,
    /// Most right verdicts that are kept of each kind.
    quotas: BTreeMap<String, usize>,
    rows: Vec<ReportRow>,
}

impl RowSelection {
    /// An empty selection of at most `capacity` frames. `kinds` has the kind of each frame of the
    /// data set: small kinds are shown whole, and large ones get equal parts of the rest.
    pub(super) fn new<'a>(capacity: usize, kinds: impl Iterator<Item = &'a str>) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for kind in kinds {
            *counts.entry(kind).or_default() += 1;
        }
        let mut by_size: Vec<(&str, usize)> = counts.into_iter().collect();
        by_size.sort_by_key(|&(_, count)| count);
        let mut left = capacity;
        let mut waiting = by_size.len();
        let quotas = by_size
            .into_iter()
            .map(|(kind, count)| {
                let quota = count.min(left.div_ceil(waiting));
                left -= quota;
                waiting -= 1;
                (kind.to_owned(), quota)
            })
            .collect();
        Self {
            capacity,
            quotas,
            rows: Vec::new(),
        }
    }

    /// Whether [`Self::push`] would keep such a frame. Asking first saves drawing its pictures.
    pub(super) fn wants(&self, kind: &str, wrong: bool) -> bool {
        if wrong {
            self.rows.len() < self.capacity || self.evictable().is_some()
        } else {
            let right = self.rows.iter().filter(|row| !row.is_wrong());
            self.rows.len() < self.capacity
                && right.filter(|row| row.kind == kind).count()
                    < self.quotas.get(kind).copied().unwrap_or(0)
        }
    }

    /// Keeps the frame if it is wanted. If there is no room, a wrong verdict evicts a right one of
    /// the kind that has most of them.
    pub(super) fn push(&mut self, row: ReportRow) {
        if !self.wants(&row.kind, row.is_wrong()) {
            return;
        }
        if self.rows.len() >= self.capacity {
            match self.evictable() {
                Some(index) => drop(self.rows.remove(index)),
                None => return,
            }
        }
        self.rows.push(row);
    }

    /// The frames, in the order in which they were pushed.
    pub(super) fn into_rows(self) -> Vec<ReportRow> {
        self.rows
    }

    /// Index of the row that a wrong verdict evicts.
    fn evictable(&self) -> Option<usize> {
        let mut right: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (index, row) in self.rows.iter().enumerate().filter(|(_, r)| !r.is_wrong()) {
            let (count, last) = right.entry(&row.kind).or_default();
            (*count, *last) = (*count + 1, index);
        }
        right.into_values().max().map(|(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, name: usize, wrong: bool) -> ReportRow {
        let defect = kind != "good";
        ReportRow {
            kind: kind.to_owned(),
            name: name.to_string(),
            score: 1.0,
            verdict: Some(if defect == wrong {
                Verdict::Ok
            } else {
                Verdict::Ng
            }),
            regions: 0,
            defect,
            outside: false,
            pictures: Pictures {
                input: RgbImage::new(1, 1),
                heat: RgbImage::new(1, 1),
                overlay: None,
                truth: None,
            },
        }
    }

    /// Selects from kinds with a number of frames, of which the given number at the end are wrong.
    /// Returns each kind with the number of frames shown and how many of them are wrong.
    fn shown(capacity: usize, kinds: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
        let all = kinds
            .iter()
            .flat_map(|&(kind, count, _)| std::iter::repeat_n(kind, count));
        let mut selection = RowSelection::new(capacity, all);
        for &(kind, count, wrong) in kinds {
            (0..count).for_each(|i| selection.push(row(kind, i, i >= count - wrong)));
        }
        let rows = selection.into_rows();
        assert!(rows.len() <= capacity);
        kinds
            .iter()
            .map(|&(kind, ..)| {
                let of: Vec<&ReportRow> = rows.iter().filter(|row| row.kind == kind).collect();
                let wrong = of.iter().filter(|row| row.is_wrong()).count();
                (kind.to_owned(), of.len(), wrong)
            })
            .collect()
    }

    fn expect(found: &[(String, usize, usize)], expected: &[(&str, usize, usize)]) {
        let found: Vec<_> = found.iter().map(|(k, n, w)| (k.as_str(), *n, *w)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn all_are_shown_where_there_is_room() {
        let found = shown(100, &[("cut", 5, 2), ("good", 30, 0)]);
        expect(&found, &[("cut", 5, 2), ("good", 30, 0)]);
    }

    #[test]
    fn every_kind_gets_its_share() {
        let found = shown(30, &[("a", 100, 0), ("b", 4, 0), ("good", 100, 0)]);
        expect(&found, &[("a", 13, 0), ("b", 4, 0), ("good", 13, 0)]);
    }

    #[test]
    fn later_wrong_verdicts_evict_right_ones() {
        let found = shown(10, &[("a", 50, 3), ("good", 50, 6)]);
        assert_eq!(found.iter().map(|f| f.2).sum::<usize>(), 9);
        assert_eq!(found.iter().map(|f| f.1).sum::<usize>(), 10);
        // With more wrong verdicts than room, only the room limits.
        let found = shown(4, &[("a", 9, 9)]);
        expect(&found, &[("a", 4, 4)]);
    }

    #[test]
    fn no_room_shows_nothing() {
        let selection = RowSelection::new(0, ["good"; 3].into_iter());
        assert!(!selection.wants("good", true) && !selection.wants("good", false));
    }
}
