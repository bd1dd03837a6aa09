//! Which frames the report shows when it cannot show all: every wrong decision as far as there is room, and right ones
//! of every kind.
//!
//! Only frames on show keep their pictures, so that memory does not grow with the data set.

use std::collections::BTreeMap;

use super::Row;

/// Frames kept for the report, at most so many.
#[derive(Debug)]
pub(super) struct Shown {
    most: usize,
    /// Room for right decisions, per kind.
    room: BTreeMap<String, usize>,
    rows: Vec<Row>,
}

impl Shown {
    /// Room for `most` frames, shared out among the kinds as they come in the data set: small kinds are shown whole,
    /// large ones get equal parts of the rest.
    pub(super) fn new<'a>(most: usize, kinds: impl Iterator<Item = &'a str>) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for kind in kinds {
            *counts.entry(kind).or_default() += 1;
        }
        let mut by_size: Vec<(&str, usize)> = counts.into_iter().collect();
        by_size.sort_by_key(|&(_, count)| count);
        let mut left = most;
        let mut waiting = by_size.len();
        let room = by_size
            .into_iter()
            .map(|(kind, count)| {
                let share = count.min(left.div_ceil(waiting));
                left -= share;
                waiting -= 1;
                (kind.to_owned(), share)
            })
            .collect();
        Self {
            most,
            room,
            rows: Vec::new(),
        }
    }

    /// Whether [`Shown::push`] would keep such a frame: ask before drawing it.
    pub(super) fn wants(&self, kind: &str, wrong: bool) -> bool {
        if wrong {
            self.rows.len() < self.most || self.displaceable().is_some()
        } else {
            let right = self.rows.iter().filter(|row| !row.is_wrong());
            self.rows.len() < self.most
                && right.filter(|row| row.kind == kind).count()
                    < self.room.get(kind).copied().unwrap_or(0)
        }
    }

    /// Keeps the frame if it is wanted; a wrong decision displaces a right one of the kind that shows most of them.
    pub(super) fn push(&mut self, row: Row) {
        if !self.wants(&row.kind, row.is_wrong()) {
            return;
        }
        if self.rows.len() >= self.most {
            match self.displaceable() {
                Some(index) => drop(self.rows.remove(index)),
                None => return,
            }
        }
        self.rows.push(row);
    }

    /// The frames, in the order that they came in.
    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    fn displaceable(&self) -> Option<usize> {
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
    use crate::evaluate::Pictures;
    use edge_runtime::inspect::verdict::Verdict;
    use image::RgbImage;

    fn row(kind: &str, name: usize, wrong: bool) -> Row {
        let defect = kind != "good";
        Row {
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
            pictures: Pictures {
                input: RgbImage::new(1, 1),
                heat: RgbImage::new(1, 1),
                overlay: None,
                truth: None,
            },
        }
    }

    /// Kinds with their frames and how many of the last are wrong → kind, shown, of them wrong.
    fn shown(most: usize, kinds: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
        let all = kinds
            .iter()
            .flat_map(|&(kind, count, _)| std::iter::repeat_n(kind, count));
        let mut shown = Shown::new(most, all);
        for &(kind, count, wrong) in kinds {
            (0..count).for_each(|i| shown.push(row(kind, i, i >= count - wrong)));
        }
        let rows = shown.into_rows();
        assert!(rows.len() <= most);
        kinds
            .iter()
            .map(|&(kind, ..)| {
                let of: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
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
    fn late_wrong_decisions_displace_right_ones() {
        let found = shown(10, &[("a", 50, 3), ("good", 50, 6)]);
        assert_eq!(found.iter().map(|f| f.2).sum::<usize>(), 9);
        assert_eq!(found.iter().map(|f| f.1).sum::<usize>(), 10);
        // More wrong decisions than room: room is all that counts.
        let found = shown(4, &[("a", 9, 9)]);
        expect(&found, &[("a", 4, 4)]);
    }

    #[test]
    fn no_room_shows_nothing() {
        let shown = Shown::new(0, ["good"; 3].into_iter());
        assert!(!shown.wants("good", true) && !shown.wants("good", false));
    }
}
