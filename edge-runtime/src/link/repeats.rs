//! Commands that come twice on a serial line, because the answer to the first was lost. In: commands
//! with their numbers. Out: the answer that was given already.

use std::time::{Duration, Instant};

use proto::message::Command;

use super::permission;

/// Time after an answer in which the same command with the same number is taken for a repetition.
/// A station repeats one every 10 s.
const REPEATED_WITHIN: Duration = Duration::from_secs(30);

/// The last command that must not be carried out twice.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    id: u32,
    command: Command,
    /// The answer, encoded.
    answer: Vec<u8>,
    answered: Instant,
}

impl Repeats {
    /// The answer to a command that was carried out already.
    pub(super) fn answer(&mut self, id: u32, command: &Command, now: Instant) -> Option<Vec<u8>> {
        let last = self.last.as_mut()?;
        let same = last.id == id && last.command == *command;
        if !same || now.duration_since(last.answered) > REPEATED_WITHIN {
            return None;
        }
        last.answered = now;
        Some(last.answer.clone())
    }

    /// Keeps the answer to a command. What only reads is answered anew.
    pub(super) fn keep(&mut self, id: u32, command: Command, answer: Vec<u8>, now: Instant) {
        self.last = permission::only_once(&command).then_some(Last {
            id,
            command,
            answer,
            answered: now,
        });
    }
}

#[cfg(test)]
mod tests {
    use proto::message::Mode;

    use super::*;

    #[test]
    fn only_the_same_command_with_the_same_number_soon_after_is_a_repetition() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let set = |mode| Command::SetMode {
            mode,
            reason: "a test".to_owned(),
        };
        let observe = set(Mode::Observe);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.answer(1, &observe, start), None);
        repeats.keep(1, observe.clone(), vec![7], start);
        assert_eq!(repeats.answer(1, &observe, at(20)), Some(vec![7]));
        assert_eq!(repeats.answer(1, &observe, at(45)), Some(vec![7]));
        assert_eq!(repeats.answer(2, &observe, at(46)), None);
        assert_eq!(repeats.answer(1, &set(Mode::Inspect), at(46)), None);
        assert_eq!(repeats.answer(1, &observe, at(80)), None, "too late");
        // A reading is always of now.
        repeats.keep(3, Command::ReadMode, vec![8], start);
        assert_eq!(repeats.answer(3, &Command::ReadMode, start), None);
        repeats.keep(4, Command::GoldenCheck, vec![9], start);
        assert!(repeats.answer(4, &Command::GoldenCheck, start).is_some());
    }
}
