use super::*;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SMALL: Limits = Limits {
    max_bytes: 4_000,
    segment_bytes: 400,
    max_pending_bytes: 1_000,
};

/// Two files at most, so that damage falls into a file with many records.
const LARGE: Limits = Limits {
    max_bytes: 1 << 20,
    segment_bytes: 1 << 19,
    max_pending_bytes: 1 << 20,
};

fn payload(sequence: u64) -> Vec<u8> {
    let length = (sequence * 7 % 23) as usize;
    vec![sequence as u8; length]
}

fn append(journal: &mut Journal, count: usize) {
    for _ in 0..count {
        let expected = journal.next();
        assert_eq!(journal.append(&payload(expected)).unwrap(), expected);
    }
}

fn filled(folder: &Path, limits: Limits, count: usize) -> Journal {
    let (mut journal, _) = Journal::open(folder, limits).unwrap();
    for _ in 0..count {
        append(&mut journal, 1);
        if journal.next() % 10 == 0 {
            journal.sync().unwrap();
        }
    }
    journal.sync().unwrap();
    journal
}

/// The numbers of all readable records; checks that every payload is the one that was written.
fn numbers(reader: &JournalReader) -> Vec<u64> {
    let batch = reader.read_from(0, usize::MAX, usize::MAX).unwrap();
    for (sequence, found) in &batch.records {
        assert_eq!(found, &payload(*sequence));
    }
    batch
        .records
        .iter()
        .map(|&(sequence, _)| sequence)
        .collect()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some());
    paths.sort();
    paths
}

/// The number in the newest segment's name.
fn newest(folder: &Path) -> u64 {
    let path = segments(folder).pop().unwrap();
    segment::first_of_name(path.file_name().unwrap().to_str().unwrap()).unwrap()
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..to).collect()
}

#[test]
fn only_durable_records_are_visible_and_numbering_continues() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, recovery) = Journal::open(folder.path(), SMALL).unwrap();
    assert_eq!(
        (recovery.records, journal.durable(), journal.oldest()),
        (0, None, None)
    );
    append(&mut journal, 3);
    assert!(numbers(&journal.reader()).is_empty());
    assert_eq!(journal.sync().unwrap(), Some(3));
    assert_eq!(numbers(&journal.reader()), [1, 2, 3]);
    append(&mut journal, 2);
    assert!(matches!(
        Journal::open(folder.path(), SMALL),
        Err(JournalError::InUse(_))
    ));
    drop(journal);
    let (journal, recovery) = Journal::open(folder.path(), SMALL).unwrap();
    assert_eq!((recovery.records, recovery.cut_bytes), (3, 0));
    assert_eq!(journal.next(), 4, "4 and 5 were never durable");
}

#[test]
fn a_file_truncated_anywhere_keeps_its_whole_records_and_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), LARGE, 12));
    let path = segments(folder.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (mut journal, recovery) = Journal::open(folder.path(), LARGE).unwrap();
        let mut end = 0;
        let fits = |sequence: &u64| {
            end += OVERHEAD_BYTES + payload(*sequence).len();
            end <= length
        };
        let kept = (1..=12).take_while(fits).count() as u64;
        let bytes: usize = (1..=kept).map(|n| OVERHEAD_BYTES + payload(n).len()).sum();
        assert_eq!(numbers(&journal.reader()), range(1, kept + 1));
        assert_eq!(recovery.records, kept);
        assert_eq!(recovery.cut_bytes, (length - bytes) as u64);
        append(&mut journal, 2);
        assert_eq!(journal.sync().unwrap(), Some(kept + 2));
        drop(journal);
        let (journal, recovery) = Journal::open(folder.path(), LARGE).unwrap();
        assert_eq!((recovery.cut_bytes, recovery.damaged_bytes), (0, 0));
        assert_eq!(numbers(&journal.reader()), range(1, kept + 3));
    }
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = filled(folder.path(), SMALL, 30);
    let reader = journal.reader();
    for path in segments(folder.path()) {
        let whole = fs::read(&path).unwrap();
        let first = segment::first_of_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        for bit in (0..whole.len() * 8).step_by(19) {
            let mut hit = first;
            let mut end = 0;
            while end + OVERHEAD_BYTES + payload(hit).len() <= bit / 8 {
                end += OVERHEAD_BYTES + payload(hit).len();
                hit += 1;
            }
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let mut expected = range(1, 31);
            expected.retain(|&sequence| sequence != hit);
            assert_eq!(numbers(&reader), expected, "running, bit {bit} of {path:?}");
            // A damaged last record is taken for a torn one and cut off; this is undone below.
            drop(journal);
            let (again, recovery) = Journal::open(folder.path(), SMALL).unwrap();
            assert_eq!(numbers(&again.reader()), expected, "bit {bit} of {path:?}");
            // A start reads the newest segment only.
            let newest = newest(folder.path());
            let lost = u64::from(hit >= newest);
            assert_eq!(recovery.records, 31 - newest - lost);
            assert_eq!(
                recovery.skipped_records,
                u64::from(hit >= newest && hit < 30)
            );
            fs::write(&path, &whole).unwrap();
            drop(again);
            journal = Journal::open(folder.path(), SMALL).unwrap().0;
        }
    }
}

#[test]
fn the_oldest_records_are_evicted_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), SMALL).unwrap();
    let reader = journal.reader();
    let mut evicted = 1;
    for _ in 0..50 {
        append(&mut journal, 7);
        journal.sync().unwrap();
        assert!(journal.bytes() <= SMALL.max_bytes);
        let on_disk: u64 = segments(folder.path())
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        assert_eq!(journal.bytes(), on_disk);
        let gone = journal.take_evicted();
        if !gone.is_empty() {
            assert_eq!(gone.start, evicted);
            evicted = gone.end;
        }
        assert_eq!(journal.oldest(), Some(evicted));
        assert_eq!(numbers(&reader), range(evicted, journal.next()));
    }
    assert!(evicted > 200);
    let batch = reader.read_from(3, 2, usize::MAX).unwrap();
    assert_eq!((batch.first, batch.next), (evicted, evicted + 2));
}

#[test]
fn numbers_are_never_reused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = filled(folder.path(), SMALL, 200);
    let last = segments(folder.path()).pop().unwrap();
    drop(journal);
    for path in segments(folder.path()) {
        if path != last {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(&last, b"").unwrap();
    let first = segment::first_of_name(last.file_name().unwrap().to_str().unwrap()).unwrap();
    let (mut journal, _) = Journal::open(folder.path(), SMALL).unwrap();
    assert_eq!(journal.next(), first);
    assert_eq!(
        (journal.durable(), journal.oldest()),
        (Some(first - 1), None)
    );
    journal.skip_to(201).unwrap();
    journal.skip_to(7).unwrap();
    drop(journal);
    let (mut journal, _) = Journal::open(folder.path(), SMALL).unwrap();
    assert_eq!(journal.next(), 201);
    append(&mut journal, 1);
    journal.sync().unwrap();
    assert_eq!(numbers(&journal.reader()), [201]);
    assert_eq!(segments(folder.path()).len(), 1, "the unused one is gone");
    assert!(matches!(
        journal.skip_to(u64::MAX),
        Err(JournalError::Sequence(u64::MAX))
    ));
}

#[test]
fn batches_keep_their_limits_and_contain_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let journal = filled(folder.path(), SMALL, 90);
    let reader = journal.reader();
    for (max_records, max_bytes) in [(1, 0), (4, 1_000), (100, 30), (1_000, 1_000)] {
        let mut next = 1;
        while next <= 90 {
            let batch = reader.read_from(next, max_records, max_bytes).unwrap();
            assert_eq!(batch.first, next);
            assert!((1..=max_records).contains(&batch.records.len()));
            let bytes: usize = batch.records.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(bytes <= max_bytes || batch.records.len() == 1);
            for (sequence, found) in batch.records {
                assert_eq!((sequence, found), (next, payload(next)));
                next += 1;
            }
            assert_eq!(batch.next, next);
        }
    }
    assert_eq!(reader.read_from(91, 9, 9).unwrap().records, []);
}

#[test]
fn readers_follow_a_writer_that_evicts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), SMALL).unwrap();
    let reader = journal.reader();
    let done = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = reader.clone();
            let (done, seen) = (&done, &seen);
            scope.spawn(move || {
                let mut next = 1;
                loop {
                    let last_round = done.load(Ordering::Acquire);
                    let batch = reader.read_from(next, 16, 4_096).unwrap();
                    assert!(batch.next >= next);
                    for (sequence, found) in &batch.records {
                        assert!(*sequence >= next);
                        assert_eq!(found, &payload(*sequence));
                        next = sequence + 1;
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                    next = batch.next;
                    if last_round && batch.records.is_empty() {
                        break;
                    }
                }
                assert_eq!(next, 1_001);
            });
        }
        for _ in 0..100 {
            append(&mut journal, 10);
            journal.sync().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
}

#[test]
fn too_many_and_too_long_payloads_are_refused_without_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), SMALL).unwrap();
    let longest = SMALL.segment_bytes as usize - OVERHEAD_BYTES;
    assert!(matches!(
        journal.append(&vec![0; longest + 1]),
        Err(JournalError::TooLong(_))
    ));
    assert_eq!(journal.append(&vec![0; longest]).unwrap(), 1);
    assert_eq!(journal.append(&vec![1; longest]).unwrap(), 2);
    assert!(matches!(
        journal.append(&vec![0; longest]),
        Err(JournalError::Backlog { .. })
    ));
    assert_eq!(journal.sync().unwrap(), Some(2));
    assert_eq!(journal.append(&[]).unwrap(), 3);
    let wrong = Limits {
        segment_bytes: 3_000,
        ..SMALL
    };
    let other = tempfile::tempdir().unwrap();
    assert!(matches!(
        Journal::open(other.path(), wrong),
        Err(JournalError::Limits(_))
    ));
}

/// A disk of limited size. Like a real one it writes what still fits and then fails.
#[derive(Default)]
struct Fault {
    free_bytes: AtomicU64,
    sync_fails: AtomicBool,
    truncate_fails: AtomicBool,
    open_fails: AtomicBool,
}

struct Faulty(Arc<Fault>);

struct FaultyFile {
    fault: Arc<Fault>,
    file: Box<dyn SegmentFile>,
    synced: bool,
}

fn fails(fault: &AtomicBool) -> io::Result<()> {
    if fault.load(Ordering::Relaxed) {
        return Err(io::Error::other("input/output error"));
    }
    Ok(())
}

impl Disk for Faulty {
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        fails(&self.0.open_fails)?;
        Ok(Box::new(FaultyFile {
            fault: Arc::clone(&self.0),
            file: FileSystem.open(path)?,
            synced: true,
        }))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        FileSystem.remove(path)
    }
}

impl SegmentFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let free = self.fault.free_bytes.load(Ordering::Relaxed);
        let fits = free.min(bytes.len() as u64);
        self.file.append(&bytes[..fits as usize])?;
        self.fault.free_bytes.store(free - fits, Ordering::Relaxed);
        self.synced = false;
        if fits < bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        // As on Linux, a second sync succeeds although the first one's bytes are lost.
        if !std::mem::replace(&mut self.synced, true) {
            fails(&self.fault.sync_fails)?;
        }
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        fails(&self.fault.truncate_fails)?;
        self.file.truncate(bytes)
    }
}

fn faulty(folder: &Path, limits: Limits) -> (Journal, Arc<Fault>) {
    let fault = Arc::new(Fault::default());
    fault.free_bytes.store(u64::MAX, Ordering::Relaxed);
    let disk = Box::new(Faulty(Arc::clone(&fault)));
    (Journal::open_on(disk, folder, limits).unwrap().0, fault)
}

#[test]
fn a_full_disk_loses_no_accepted_payload() {
    for free_bytes in (0..120).step_by(5) {
        for truncate_fails in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (mut journal, fault) = faulty(folder.path(), SMALL);
            append(&mut journal, 5);
            journal.sync().unwrap();
            fault.free_bytes.store(free_bytes, Ordering::Relaxed);
            fault
                .truncate_fails
                .store(truncate_fails, Ordering::Relaxed);
            append(&mut journal, 10);
            assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
            let shown = journal.durable().unwrap();
            assert_eq!(numbers(&journal.reader()), range(1, shown + 1));
            while journal.append(&payload(journal.next())).is_ok() {}
            assert!(journal.sync().is_err());
            let accepted = journal.next();
            fault.free_bytes.store(u64::MAX, Ordering::Relaxed);
            fault.truncate_fails.store(false, Ordering::Relaxed);
            assert_eq!(journal.sync().unwrap(), Some(accepted - 1));
            append(&mut journal, 3);
            journal.sync().unwrap();
            drop(journal);
            let (journal, recovery) = Journal::open(folder.path(), SMALL).unwrap();
            assert_eq!((recovery.cut_bytes, recovery.damaged_bytes), (0, 0));
            assert_eq!(numbers(&journal.reader()), range(1, accepted + 3));
        }
    }
}

#[test]
fn after_a_failed_sync_everything_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, fault) = faulty(folder.path(), SMALL);
    append(&mut journal, 4);
    fault.sync_fails.store(true, Ordering::Relaxed);
    assert!(journal.sync().is_err());
    assert!(journal.sync().is_err(), "written again, so synced again");
    assert_eq!(journal.durable(), None);
    assert_eq!(fs::metadata(&segments(folder.path())[0]).unwrap().len(), 0);
    fault.sync_fails.store(false, Ordering::Relaxed);
    fault.open_fails.store(true, Ordering::Relaxed);
    append(&mut journal, 20);
    assert!(journal.sync().is_err(), "no second segment can be made");
    let shown = journal.durable().unwrap();
    assert!((4..24).contains(&shown));
    fault.open_fails.store(false, Ordering::Relaxed);
    assert_eq!(journal.sync().unwrap(), Some(24));
    assert_eq!(numbers(&journal.reader()), range(1, 25));
}

#[test]
fn a_segment_deleted_by_others_is_an_error_that_says_where_to_continue() {
    let folder = tempfile::tempdir().unwrap();
    let journal = filled(folder.path(), SMALL, 40);
    let gone = segments(folder.path()).remove(0);
    fs::remove_file(&gone).unwrap();
    let reader = journal.reader();
    let Err(JournalError::Unreadable { resume_at, .. }) = reader.read_from(1, 9, 999) else {
        panic!("nothing can be read");
    };
    let batch = reader.read_from(resume_at, 99, 9_999).unwrap();
    assert_eq!((batch.first, batch.next), (resume_at, 41));
}

#[test]
fn old_segments_are_read_on_demand_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_bytes: 4 << 20,
        segment_bytes: 400 << 10,
        max_pending_bytes: 1 << 20,
    };
    drop(filled(folder.path(), limits, 60_000));
    assert!(segments(folder.path()).len() > 2);
    let (journal, recovery) = Journal::open(folder.path(), limits).unwrap();
    assert_eq!(recovery.records, 60_001 - newest(folder.path()));
    assert_eq!(journal.oldest(), Some(FIRST_SEQUENCE));
    let reader = journal.reader();
    let unread = || {
        let segments = reader.folder.lock();
        segments
            .list
            .iter()
            .filter(|segment| segment.is_unread())
            .count()
    };
    assert_eq!(unread(), segments(folder.path()).len() - 1);
    let batch = reader.read_from(20_000, 3, usize::MAX).unwrap();
    assert_eq!(batch.records[2], (20_002, payload(20_002)));
    assert_eq!(unread(), segments(folder.path()).len() - 2);
    // The index is known now, so reading does not start at the segment's beginning.
    let span = reader.locate(20_000).unwrap();
    assert!(span.bytes.0 > 100_000, "{:?}", span.bytes);
    assert_eq!(numbers(&reader), range(1, 60_001));
    assert_eq!(unread(), 0);
}

#[test]
fn many_records_pass_through_large_segments() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits::new(64 << 20);
    let (mut journal, _) = Journal::open(folder.path(), limits).unwrap();
    let reader = journal.reader();
    let report = vec![0x5a; 300];
    for _ in 0..20 {
        for _ in 0..5_000 {
            journal.append(&report).unwrap();
        }
        journal.sync().unwrap();
    }
    let mut next = 1;
    while next <= 100_000 {
        let batch = reader.read_from(next, 500, 1 << 20).unwrap();
        assert_eq!((batch.first, batch.records.len()), (next, 500));
        next = batch.next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_bytes_in_segments_do_no_harm(
        files in proptest::collection::vec(
            (0u64..200, proptest::collection::vec(any::<u8>(), 0..200)), 0..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut highest = FIRST_SEQUENCE;
        for (first, bytes) in files {
            fs::write(Segment::empty(first).path(folder.path()), bytes).unwrap();
            highest = highest.max(first);
        }
        let (mut journal, recovery) = Journal::open(folder.path(), SMALL).unwrap();
        prop_assert_eq!(recovery.records, 0);
        prop_assert!(journal.next() >= highest);
        let next = journal.next();
        append(&mut journal, 3);
        journal.sync().unwrap();
        prop_assert_eq!(numbers(&journal.reader()), range(next, next + 3));
    }
}

#[test]
fn an_unusable_folder_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("journal");
    drop(filled(&folder, SMALL, 12));
    let away = root.path().join("away");
    fs::rename(&folder, &away).unwrap();
    fs::write(&folder, b"in the way").unwrap();
    let (mut journal, opened) = Journal::open_or_wait(&folder, SMALL).unwrap();
    assert!(matches!(opened, Err(JournalError::Io { .. })));
    let reader = journal.reader();
    assert_eq!((reader.durable(), reader.oldest()), (None, None));
    assert!(journal.skip_to(20).is_err());
    // Payloads are accepted all the same; their numbers are known later.
    journal.append(&payload(20)).unwrap();
    journal.append(&payload(21)).unwrap();
    assert!(journal.sync().is_err());
    assert!(reader.read_from(1, 9, 999).unwrap().records.is_empty());
    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    std::thread::sleep(READ_AGAIN_AFTER);
    assert_eq!(journal.sync().unwrap(), Some(21));
    let expected = [range(1, 13), range(20, 22)].concat();
    assert_eq!(numbers(&reader), expected);
    assert!(matches!(
        Journal::open_or_wait(&folder, SMALL),
        Err(JournalError::InUse(_))
    ));
}

#[test]
fn a_journal_that_cannot_be_written_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path(), SMALL, 25));
    let fault = Arc::new(Fault::default());
    fault.free_bytes.store(u64::MAX, Ordering::Relaxed);
    fault.open_fails.store(true, Ordering::Relaxed);
    let disk = Box::new(Faulty(Arc::clone(&fault)));
    let (mut journal, opened) = Journal::open_or_wait_on(disk, folder.path(), SMALL).unwrap();
    assert!(opened.is_err());
    assert_eq!(numbers(&journal.reader()), range(1, 26));
    append(&mut journal, 5);
    assert!(journal.sync().is_err());
    fault.open_fails.store(false, Ordering::Relaxed);
    assert_eq!(journal.sync().unwrap(), Some(30));
    assert_eq!(numbers(&journal.reader()), range(1, 31));
}
