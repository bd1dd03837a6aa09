use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use scoring::inspect::frame::{Channels, Frame, Pixels};
use scoring::inspect::map::ScoreMap;
use scoring::io::image_file::read_frame;
use tiff::decoder::{Decoder, DecodingResult};

const ROOMY: Limits = Limits { max_bytes: 1 << 20 };
/// Three items of each verdict, of three files each.
const TIGHT: Limits = Limits {
    max_bytes: 2 * 3 * 3 * 4_096,
};

fn frame(channels: Channels, deep: bool) -> Frame {
    let count = 12 * 9 * channels.count();
    let pixels = if deep {
        Pixels::U16((0..count).map(|i| (i * 523) as u16).collect())
    } else {
        Pixels::U8((0..count).map(|i| (i * 7) as u8).collect())
    };
    Frame::new(12, 9, channels, pixels).unwrap()
}

fn map() -> ScoreMap {
    let mut map = ScoreMap::zeros(5, 4);
    for (index, score) in map.data.iter_mut().enumerate() {
        *score = (index as f32).exp() / 3.0;
    }
    map.data[3] = f32::MIN_POSITIVE;
    map
}

fn store(store: &mut ImageStore, id: u64, verdict: Verdict) {
    try_store(store, id, verdict).unwrap();
}

fn try_store(store: &mut ImageStore, id: u64, verdict: Verdict) -> Result<(), StoreError> {
    let frame = frame(Channels::Grey, false);
    let item = StoredItem {
        id,
        unix_ms: 1_790_000_000_000 + id,
        verdict,
        score: 1.25,
        threshold: 1.0,
        model: "bracket 3",
        frame: &frame,
        map: Some(&map()),
    };
    store.store(item)
}

fn ids(store: &ImageStore, verdict: Verdict) -> Vec<u64> {
    store.ids(verdict).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn frames_maps_and_metadata_are_read_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = ImageStore::open(folder.path(), ROOMY).unwrap();
    let kinds = [
        (Channels::Grey, false),
        (Channels::Rgb, false),
        (Channels::Grey, true),
        (Channels::Rgb, true),
    ];
    for (id, (channels, deep)) in (1..).zip(kinds) {
        let (frame, map) = (frame(channels, deep), map());
        let item = StoredItem {
            id,
            unix_ms: 7,
            verdict: Verdict::Ng,
            score: 1.25,
            threshold: 1.0,
            model: "bracket 3",
            frame: &frame,
            map: Some(&map),
        };
        kept.store(item).unwrap();
        let path = |ending: &str| folder.path().join(format!("{id:020}-NG.{ending}"));
        assert_eq!(read_frame(&path("png")).unwrap(), frame);
        let mut decoder = Decoder::new(fs::File::open(path("map.tiff")).unwrap()).unwrap();
        assert_eq!(decoder.dimensions().unwrap(), (5, 4));
        let DecodingResult::F32(scores) = decoder.read_image().unwrap() else {
            panic!("the map is f32");
        };
        assert_eq!(scores, map.data);
        let metadata: serde_json::Value =
            serde_json::from_slice(&fs::read(path("json")).unwrap()).unwrap();
        assert_eq!(metadata["verdict"], "NG");
        assert_eq!(metadata["model"], "bracket 3");
        assert_eq!(metadata["map"]["width_px"], 5);
    }
}

#[test]
fn each_verdict_has_half_of_the_space_and_the_oldest_items_are_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = ImageStore::open(folder.path(), TIGHT).unwrap();
    store(&mut kept, 1, Verdict::Ok);
    store(&mut kept, 2, Verdict::Ok);
    for id in 3..20 {
        store(&mut kept, id, Verdict::Ng);
        assert!(kept.bytes() <= TIGHT.max_bytes);
    }
    store(&mut kept, 19, Verdict::Ng);
    assert_eq!(ids(&kept, Verdict::Ok), [1, 2]);
    assert_eq!(ids(&kept, Verdict::Ng), [17, 18, 19]);
    assert_eq!(names(folder.path()).len(), 15);
    let bytes = kept.bytes();
    let mut kept = ImageStore::open(folder.path(), TIGHT).unwrap();
    assert_eq!(kept.bytes(), bytes);
    store(&mut kept, 20, Verdict::Ng);
    assert_eq!(ids(&kept, Verdict::Ng), [18, 19, 20]);
    let lower = Limits {
        max_bytes: TIGHT.max_bytes / 3,
    };
    let kept = ImageStore::open(folder.path(), lower).unwrap();
    assert_eq!(ids(&kept, Verdict::Ok), [2]);
    assert_eq!(ids(&kept, Verdict::Ng), [20]);
}

#[test]
fn incomplete_items_are_removed_and_other_files_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = ImageStore::open(folder.path(), ROOMY).unwrap();
    for id in 1..=4 {
        store(&mut kept, id, Verdict::Ng);
    }
    let gone = |name: &str| fs::remove_file(folder.path().join(name)).unwrap();
    gone("00000000000000000001-NG.json");
    gone("00000000000000000002-NG.png");
    gone("00000000000000000003-NG.map.tiff");
    fs::write(folder.path().join(".partial-7-7"), b"half").unwrap();
    fs::write(folder.path().join("notes.txt"), b"mine").unwrap();
    let kept = ImageStore::open(folder.path(), ROOMY).unwrap();
    assert_eq!(ids(&kept, Verdict::Ng), [3, 4], "a map may be left out");
    let names = names(folder.path());
    assert_eq!(names.len(), 2 + 3 + 1, "{names:?}");
    assert!(names.contains(&"notes.txt".to_owned()));
}

#[test]
fn an_item_that_cannot_be_stored_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = ImageStore::open(folder.path(), TIGHT).unwrap();
    store(&mut kept, 1, Verdict::Ng);
    let before = names(folder.path());
    let frame = frame(Channels::Grey, false);
    let mut wrong = map();
    let item = |map| StoredItem {
        id: 2,
        unix_ms: 0,
        verdict: Verdict::Ng,
        score: 0.0,
        threshold: 0.0,
        model: "",
        frame: &frame,
        map,
    };
    wrong.data.pop();
    let result = kept.store(item(Some(&wrong)));
    assert!(matches!(result, Err(StoreError::Encode { id: 2, .. })));
    let large = ScoreMap::zeros(100, 100);
    let result = kept.store(item(Some(&large)));
    assert!(matches!(result, Err(StoreError::TooLarge { id: 2, .. })));
    // The metadata cannot replace a folder of the same name.
    let taken = folder.path().join("00000000000000000002-NG.json/x");
    fs::create_dir_all(&taken).unwrap();
    let result = kept.store(item(None));
    assert!(matches!(result, Err(StoreError::Write { id: 2, .. })));
    fs::remove_dir_all(taken.parent().unwrap()).unwrap();
    drop(kept);
    let kept = ImageStore::open(folder.path(), TIGHT).unwrap();
    assert_eq!(ids(&kept, Verdict::Ng), [1]);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn the_newest_item_stays_whatever_its_number_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = ImageStore::open(folder.path(), TIGHT).unwrap();
    for part in 1..=3 {
        store(&mut kept, item_id(9, part), Verdict::Ng);
    }
    assert_eq!(highest_boot(folder.path()), 9);
    // As after a boot counter that began again.
    let mut kept = ImageStore::open(folder.path(), TIGHT).unwrap();
    store(&mut kept, item_id(1, 1), Verdict::Ng);
    store(&mut kept, item_id(1, 2), Verdict::Ng);
    let expected = [item_id(1, 1), item_id(1, 2), item_id(9, 3)];
    assert_eq!(ids(&kept, Verdict::Ng), expected);
}

/// A disk of this many blocks of which something else has taken `taken`, and which leaves
/// `reserve` bytes for reports.
struct FakeDisk {
    folder: PathBuf,
    blocks: u64,
    taken: AtomicU64,
    refuses: AtomicBool,
}

impl FakeDisk {
    fn new(folder: &Path, blocks: u64) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            blocks,
            taken: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
        })
    }

    fn measure(self: &Arc<Self>) -> Measure {
        let disk = Arc::clone(self);
        Arc::new(move || {
            let used = disk.taken.load(Ordering::Relaxed) * BLOCK + folder_bytes(&disk.folder);
            Some(Space {
                free_bytes: (disk.blocks * BLOCK).saturating_sub(used),
                reserve_bytes: 10 * BLOCK,
                refuses: disk.refuses.load(Ordering::Relaxed),
            })
        })
    }
}

const BLOCK: u64 = 4_096;

#[test]
fn pictures_leave_space_for_reports_whatever_fills_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    // Ten blocks for reports, and four items of three.
    let disk = FakeDisk::new(folder.path(), 10 + 4 * 3);
    let opened = ImageStore::open(folder.path(), ROOMY).unwrap();
    let mut images = opened.leaving_space(disk.measure()).unwrap();
    for id in 0..4 {
        store(&mut images, id, Verdict::Ng);
    }
    store(&mut images, 4, Verdict::Ok);
    assert_eq!(ids(&images, Verdict::Ng), [1, 2, 3], "the oldest went");
    assert_eq!(ids(&images, Verdict::Ok), [4]);
    // Something else fills the disk.
    disk.taken.store(5, Ordering::Relaxed);
    assert_eq!(images.leave_space().unwrap(), 2);
    assert_eq!(ids(&images, Verdict::Ng), [3]);
    assert_eq!(ids(&images, Verdict::Ok), [4]);
    // At a start it is the same.
    disk.taken.store(9, Ordering::Relaxed);
    drop(images);
    let opened = ImageStore::open(folder.path(), ROOMY).unwrap();
    let mut images = opened.leaving_space(disk.measure()).unwrap();
    assert_eq!(names(folder.path()).len(), 3);
    // With no room for any, nothing is written and the error says why.
    disk.taken.store(12, Ordering::Relaxed);
    let error = try_store(&mut images, 9, Verdict::Ng)
        .unwrap_err()
        .to_string();
    assert!(error.contains("40960 are kept for reports"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn pictures_go_when_the_disk_refuses_a_report_although_it_has_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FakeDisk::new(folder.path(), 1_000);
    let opened = ImageStore::open(folder.path(), ROOMY).unwrap();
    let mut images = opened.leaving_space(disk.measure()).unwrap();
    store(&mut images, 1, Verdict::Ng);
    store(&mut images, 2, Verdict::Ok);
    disk.refuses.store(true, Ordering::Relaxed);
    assert!(matches!(
        try_store(&mut images, 3, Verdict::Ng),
        Err(StoreError::NoRoom { .. })
    ));
    assert_eq!(images.leave_space().unwrap(), 2);
    assert!(names(folder.path()).is_empty());
    disk.refuses.store(false, Ordering::Relaxed);
    store(&mut images, 4, Verdict::Ng);
    assert_eq!(ids(&images, Verdict::Ng), [4]);
}
