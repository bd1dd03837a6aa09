//! Whether frames and parts go together one to one, where the trigger drives the camera.
//!
//! In: frames that belong to a part, frames that belong to none, parts whose frame did not come.
//! Out: whether a shift stands: one frame more than parts, or the other way round, so that every
//! verdict may be about the part before or after. A single lost frame is no shift: its part goes
//! without, and both counts agree again. No clock and no device.

/// Pairs in a row after which a difference between both counts is a standing shift.
const PAIRS_UNTIL_SHIFT: u32 = 8;

/// Frames without a part, or parts without a frame, in a row that are a fault by themselves.
const UNPAIRED_IN_A_ROW: u32 = 3;

/// Counts frames without a part and parts without a frame.
#[derive(Debug, Default)]
pub struct Pairing {
    /// Frames without a part less parts without a frame.
    surplus_frames: i64,
    /// Pairs since the difference arose.
    pairs: u32,
    /// Frames without a part, or parts without a frame, since the last pair.
    unpaired: u32,
    /// A pair has been seen since the last reset. Before it, a camera may deliver stale frames.
    has_paired: bool,
    /// A shift was found. What follows says nothing, so only a reset ends it.
    shifted: bool,
}

impl Pairing {
    /// A frame was assigned to a part.
    pub fn pair(&mut self) {
        self.has_paired = true;
        self.unpaired = 0;
        if self.surplus_frames != 0 {
            self.pairs = self.pairs.saturating_add(1);
        }
        self.judge();
    }

    /// The driver says that it dropped frames: as many parts will go without.
    pub fn frames_dropped(&mut self, count: u32) {
        self.change(i64::from(count));
    }

    /// A frame belongs to no part. `part_waits`: while a part waited for one.
    pub fn frame_without_part(&mut self, part_waits: bool) {
        // A stale frame of a camera that has just been opened, with nothing on the line.
        if !self.has_paired && !part_waits {
            return;
        }
        self.unpaired = self.unpaired.saturating_add(1);
        self.change(1);
    }

    /// A part's frame did not come.
    pub fn part_without_frame(&mut self) {
        self.unpaired = self.unpaired.saturating_add(1);
        self.change(-1);
    }

    fn change(&mut self, by: i64) {
        self.surplus_frames += by;
        if self.surplus_frames == 0 || self.surplus_frames == by {
            self.pairs = 0;
        }
        self.judge();
    }

    fn judge(&mut self) {
        self.shifted |= self.unpaired >= UNPAIRED_IN_A_ROW
            || (self.surplus_frames != 0 && self.pairs >= PAIRS_UNTIL_SHIFT);
    }

    /// Whether frames and parts do not go together any more.
    pub fn is_shifted(&self) -> bool {
        self.shifted
    }

    /// Nothing has come for a while, and no frame and no part waits: the next frame cannot be the
    /// part's before. A difference is of frames that were lost. Several in a row remain a fault.
    pub fn rest(&mut self) {
        if !self.shifted {
            self.surplus_frames = 0;
            self.pairs = 0;
        }
    }

    /// Starts anew: the line is empty, or the camera was opened again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairing: &mut Pairing, count: u32) {
        (0..count).for_each(|_| pairing.pair());
    }

    #[test]
    fn a_first_frame_that_belongs_to_nobody_while_its_part_waits_is_a_shift() {
        // Without the time from exposure to stamp, frame 1 seems older than the trigger of part 1,
        // and each later frame goes to the part before.
        let mut pairing = Pairing::default();
        pairing.frame_without_part(true);
        pairs(&mut pairing, PAIRS_UNTIL_SHIFT - 1);
        assert!(!pairing.is_shifted());
        pairing.pair();
        assert!(pairing.is_shifted());
    }

    #[test]
    fn lost_frames_are_forgotten_at_rest_and_several_in_a_row_are_not() {
        let mut pairing = Pairing::default();
        pairs(&mut pairing, 1);
        pairing.part_without_frame();
        pairing.rest();
        pairing.part_without_frame();
        pairing.rest();
        pairing.part_without_frame();
        assert!(
            pairing.is_shifted(),
            "every part goes without, one at a time"
        );
        pairing.rest();
        assert!(pairing.is_shifted());
        pairing.reset();
        pairing.part_without_frame();
        pairs(&mut pairing, PAIRS_UNTIL_SHIFT - 1);
        pairing.rest();
        pairs(&mut pairing, PAIRS_UNTIL_SHIFT);
        assert!(!pairing.is_shifted());
    }

    #[test]
    fn a_lost_frame_is_no_shift_when_its_part_goes_without() {
        let mut pairing = Pairing::default();
        pairs(&mut pairing, 5);
        pairing.frame_without_part(true);
        pairing.part_without_frame();
        pairs(&mut pairing, 100);
        assert!(!pairing.is_shifted());
    }

    #[test]
    fn a_frame_that_the_driver_dropped_makes_up_for_the_part_that_goes_without() {
        for dropped_first in [true, false] {
            let mut pairing = Pairing::default();
            pairs(&mut pairing, 5);
            if dropped_first {
                pairing.frames_dropped(1);
            }
            pairing.part_without_frame();
            pairing.pair();
            if !dropped_first {
                pairing.frames_dropped(1);
            }
            pairs(&mut pairing, 100);
            assert!(!pairing.is_shifted());
        }
    }

    #[test]
    fn a_part_too_many_is_a_shift_too() {
        let mut pairing = Pairing::default();
        pairing.part_without_frame();
        pairs(&mut pairing, PAIRS_UNTIL_SHIFT);
        assert!(pairing.is_shifted());
    }

    #[test]
    fn a_camera_that_does_not_answer_is_a_fault_at_the_third_part() {
        let mut pairing = Pairing::default();
        pairing.part_without_frame();
        pairing.part_without_frame();
        assert!(!pairing.is_shifted());
        pairing.part_without_frame();
        assert!(pairing.is_shifted());
        pairing.pair();
        assert!(pairing.is_shifted(), "the pair may be of neighbours");
        pairing.reset();
        assert!(!pairing.is_shifted());
    }

    #[test]
    fn stale_frames_of_a_camera_just_opened_do_not_count() {
        let mut pairing = Pairing::default();
        (0..5).for_each(|_| pairing.frame_without_part(false));
        pairs(&mut pairing, 20);
        assert!(!pairing.is_shifted());
    }
}
