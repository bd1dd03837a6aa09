use proptest::prelude::*;
use proto::manifest::{InputSize, Reading};

use super::*;

/// Ten images as two a part, and a groups file with this content.
fn read(content: impl AsRef<[u8]>) -> (tempfile::TempDir, Result<Groups, DatasetError>) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("good")).unwrap();
    for name in names() {
        fs::write(root.path().join(name), b"").unwrap();
    }
    let csv = root.path().join("groups.csv");
    fs::write(&csv, content).unwrap();
    let groups = Groups::read(&csv, root.path());
    (root, groups)
}

fn names() -> Vec<String> {
    let numbered = (0..8).map(|number| format!("good/{number:03}.png"));
    numbered
        .chain(["good/ä.png".to_owned(), "good/a,b.png".to_owned()])
        .collect()
}

/// The lines of a groups file, with this separator, line ending and spelling of a path.
fn lines(separator: char, ending: &str, spell: impl Fn(&str) -> String) -> String {
    let rows = names()
        .into_iter()
        .enumerate()
        .map(|(number, name)| format!("{}{separator}part{}{ending}", spell(&name), number / 2));
    format!("file{separator}group{ending}{}", rows.collect::<String>())
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

#[test]
fn groups_are_read_whoever_saved_them() {
    let plain = lines(',', "\n", quoted);
    let marked = format!("\u{feff}{plain}");
    let utf16 = marked.encode_utf16();
    let latin = |text: &str| encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
    let same: Vec<(&str, Vec<u8>)> = vec![
        ("plain", plain.clone().into_bytes()),
        ("BOM", format!("\u{feff}{plain}").into_bytes()),
        ("UTF-16", utf16.flat_map(u16::to_le_bytes).collect()),
        ("Windows-1252", latin(&plain)),
        (
            "Excel",
            latin(&lines(';', "\r\n", |name| name.replace('/', "\\"))),
        ),
        ("tabs", lines('\t', "\r\n", str::to_owned).into_bytes()),
        ("old Mac", lines(';', "\r", str::to_owned).into_bytes()),
        (
            "sep=",
            format!("sep=;\r\n{}", lines(';', "\r\n", str::to_owned)).into_bytes(),
        ),
        (
            "dot",
            lines(',', "\n", |name| format!("\"./{name}\"")).into_bytes(),
        ),
        (
            "windows dot",
            lines(',', "\n", |name| format!("\".\\{name}\"")).into_bytes(),
        ),
        (
            "blanks",
            lines(';', " \n\n", |name| format!(" {name} ")).into_bytes(),
        ),
        (
            "capitals",
            plain.replace("file,group", "File , GROUP").into_bytes(),
        ),
        (
            "quoted header",
            plain
                .replace("file,group", "\"file\",\"group\"")
                .into_bytes(),
        ),
        ("no last end", plain.trim_end().as_bytes().to_vec()),
    ];
    for (what, content) in same {
        let (root, groups) = read(content);
        let groups = groups.unwrap_or_else(|error| panic!("{what}: {error}"));
        for (number, name) in names().iter().enumerate() {
            let part = groups.part(&root.path().join(name));
            assert_eq!(part, format!("group part{}", number / 2), "{what}: {name}");
        }
        assert!(
            groups.missing().is_empty(),
            "{what}: {:?}",
            groups.missing()
        );
    }
}

#[test]
fn more_columns_may_stand_anywhere() {
    let rows = names().into_iter().map(|name| format!("2026;x;{name}\n"));
    let text = format!("date;Group;FILE\n{}", rows.collect::<String>());
    let (root, groups) = read(text);
    let part = groups.unwrap().part(&root.path().join("good/003.png"));
    assert_eq!(part, "group x");
}

#[test]
fn an_absolute_path_and_bytes_of_any_kind_name_a_file() {
    let root = tempfile::tempdir().unwrap();
    let odd = root.path().join(OsStr::from_bytes(b"l\xf6t.png"));
    let plain = root.path().join("a.png");
    fs::write(&odd, b"").unwrap();
    fs::write(&plain, b"").unwrap();
    let csv = root.path().join("g.csv");
    let absolute = plain.display().to_string();
    let text = [b"file,group\nl\xf6t.png,1\n", absolute.as_bytes(), b",1\n"].concat();
    fs::write(&csv, text).unwrap();
    let groups = Groups::read(&csv, root.path()).unwrap();
    assert_eq!(groups.part(&odd), "group 1");
    assert_eq!(groups.part(&plain), "group 1");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let start = "file,group\ngood/000.png,a\n";
    let wrong = [
        (format!("{start}good/000.png,b\n"), "line 3", "line 2"),
        (format!("{start}./good/000.png,b\n"), "line 3", "one part"),
        (format!("{start}\ngood/001.png,\n"), "line 4", "empty"),
        (format!("{start}good/001.png,  \n"), "line 3", "empty"),
        (format!("{start}nonsense\n"), "line 3", "found 1"),
        (format!("{start}good/a,b.png,1\n"), "line 3", "quotes"),
        (format!("{start},1\n"), "line 3", "found none"),
        ("good/000.png,a\n".to_owned(), "line 1", "file,group"),
        (String::new(), "line 1", "file,group"),
        (
            format!("sep=,\n{start}good/000.png,b\n"),
            "line 4",
            "line 3",
        ),
    ];
    for (content, line, word) in wrong {
        let error = read(&content).1.unwrap_err().to_string();
        assert!(
            error.contains(line) && error.contains(word),
            "{content}: {error}"
        );
    }
    // The same line twice says nothing else.
    assert!(read(format!("{start}good/000.png,a\n")).1.is_ok());
}

#[test]
fn a_name_of_no_file_is_reported() {
    let (root, groups) = read("file,group\ngood/000.png,a\ngood/03.png,b\n");
    let groups = groups.unwrap();
    assert_eq!(groups.missing(), [(3, "good/03.png".to_owned())]);
    let files: Vec<PathBuf> = names().iter().map(|name| root.path().join(name)).collect();
    assert_eq!(groups.ungrouped(&files).unwrap(), 9);
}

#[test]
fn copies_merge_their_parts() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let shades = [
        ("a.png", 1),
        ("b.png", 2),
        ("c.bmp", 1),
        ("d.png", 3),
        ("e.png", 4),
    ];
    for (name, shade) in shades {
        image::GrayImage::from_pixel(70, 70, image::Luma([shade]))
            .save(at(name))
            .unwrap();
    }
    fs::write(at("g.csv"), "file,group\nb.png,x\nc.bmp,x\n").unwrap();
    let mut groups = Groups::read(&at("g.csv"), root.path()).unwrap();
    let files = ["a.png", "b.png", "c.bmp", "d.png", "e.png", "missing"].map(at);
    let survey = Survey::of(&files, InputSize::Native, &Reading::default(), &mut |_| {});
    groups.join_copies(&survey);
    let parts = files.each_ref().map(|file| groups.part(file));
    assert!(parts[0] == parts[2] && parts[0] == parts[1], "{parts:?}");
    assert!(parts[3] != parts[4] && parts[0] != parts[3], "{parts:?}");
}

#[test]
fn a_groups_file_for_other_images_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let csv = root.path().join("g.csv");
    fs::write(&csv, "file,group\ntest/good/a.png,1\n").unwrap();
    let groups = Groups::read(&csv, root.path()).unwrap();
    let at = |name: &str| root.path().join(name);
    let both = [at("test/good/a.png"), at("b.png")];
    assert_eq!(groups.ungrouped(&both).unwrap(), 1);
    let error = groups.ungrouped(&[at("a.png")]).unwrap_err().to_string();
    assert!(error.contains("names none of the 1 images"), "{error}");
    assert_eq!(Groups::default().ungrouped(&both).unwrap(), 0);
}

proptest! {
    /// Whatever a file holds, it is read or refused.
    #[test]
    fn any_bytes_are_read_or_refused(
        start in prop::sample::select(vec!["", "file,group\n", "sep=;\nfile;group\r\n", "\u{feff}file\tgroup\r"]),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let content = [start.as_bytes(), &bytes].concat();
        if let Ok(groups) = read(content).1 {
            prop_assert!(groups.parts.values().all(|part| part != "group "));
        }
    }
}
