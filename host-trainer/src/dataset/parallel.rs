//! The same work on many items, on all cores. In: items. Out: results in the order of the items, so
//! that nothing depends on the number of cores.

use std::panic::resume_unwind;
use std::sync::mpsc::channel;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

/// Calls `work` with every item and its index. `on_progress` is called on this thread, with the
/// number of items done.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    on_progress: &mut dyn FnMut(usize),
    work: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let (sender, done) = channel();
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let results = items.par_iter().enumerate();
            let results = results.map_with(sender, |sender, (index, item)| {
                let result = work(index, item);
                // The receiver lives until all senders are gone.
                sender.send(()).ok();
                result
            });
            results.collect()
        });
        for (count, ()) in (1..).zip(&done) {
            on_progress(count);
        }
        working.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_progress_counts_every_item() {
        let items: Vec<usize> = (0..500).collect();
        let mut seen = Vec::new();
        let results = in_parallel(&items, &mut |done| seen.push(done), |index, item| {
            index + item
        });
        assert!(results.iter().copied().eq((0..500).map(|item| 2 * item)));
        assert!(seen.iter().copied().eq(1..=500));
    }

    #[test]
    #[should_panic(expected = "item 3")]
    fn a_panic_is_passed_on() {
        in_parallel(&[1, 2, 3], &mut |_| {}, |_, item| {
            assert!(*item < 3, "item {item}");
        });
    }
}
