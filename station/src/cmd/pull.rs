//! `station pull`: fetches frames and recordings from a camera, for the next training.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use proto::message::{Answer, Command, FileInfo, FileKind, Start};
use proto::name::FileName;
use serde_json::json;

use super::{print_json, unexpected};
use crate::client::{Client, Endpoint, Refused};
use crate::cmd::package::progress_bar;
use crate::key_store::KeyStore;

/// Fetch stored frames and recordings from a camera, for training and evaluation.
///
/// OUT gets the layout of MVTec AD, as far as the camera knows it: OK frames in `train/good`, NG
/// frames in `test/ng`, their maps and metadata in `maps`, and recordings in `recordings`. Before
/// an evaluation, sort the NG frames by kind of defect and paint their masks. Files that exist in
/// OUT are not fetched again; an interrupted transfer is resumed.
#[derive(Args)]
pub(crate) struct Pull {
    /// The camera's name, or `serial:PATH`.
    camera: Endpoint,
    /// Folder to write to.
    #[arg(long)]
    out: PathBuf,
    /// Fetch recordings too.
    #[arg(long)]
    recordings: bool,
    /// Fetch no OK frames.
    #[arg(long)]
    ng_only: bool,
}

impl Pull {
    pub(crate) fn run(&self, json: bool) -> Result<()> {
        let key_store = KeyStore::open()?;
        let (mut client, _) = Client::greet(&key_store, &self.camera, Start::Now)?;
        let mut kinds = vec![FileKind::Ng];
        if !self.ng_only {
            kinds.push(FileKind::Ok);
        }
        if self.recordings {
            kinds.push(FileKind::Recording);
        }
        let (mut fetched, mut present, mut gone) = (0u64, 0u64, 0u64);
        for kind in kinds {
            for file in list(&mut client, kind)? {
                let path = path(&self.out, kind, &file.name);
                if path.exists() {
                    present += 1;
                    continue;
                }
                match fetch(&mut client, kind, &file, &path, json) {
                    Ok(()) => fetched += 1,
                    // The camera may have deleted it meanwhile, to make room for newer files.
                    Err(error) if error.is::<Refused>() => {
                        note!("{}: {error:#}", file.name);
                        gone += 1;
                    }
                    Err(error) => return Err(error).with_context(|| file.name),
                }
            }
        }
        if json {
            print_json(json!({ "fetched": fetched, "present": present, "gone": gone }))?;
        } else {
            say!(
                "{fetched} files fetched, {present} existed already, {gone} no longer on the camera"
            );
        }
        Ok(())
    }
}

/// A file on the camera.
#[derive(Debug)]
struct Listed {
    name: FileName,
    bytes: u64,
}

/// Where a file goes. Whatever its name, that is inside one of four folders in OUT.
fn path(out: &Path, kind: FileKind, name: &FileName) -> PathBuf {
    let folder = match kind {
        FileKind::Recording => "recordings",
        _ if !name.as_str().ends_with(".png") => "maps",
        FileKind::Ok => "train/good",
        FileKind::Ng => "test/ng",
    };
    out.join(folder).join(name.as_str())
}

/// Checks an answer to a request for the files after a name. Their order is part of the check: the
/// same files over and over would never end.
fn checked(files: &[FileInfo], after: Option<&FileName>) -> Result<Vec<Listed>> {
    let mut last = after.map(FileName::as_str);
    let mut listed = Vec::with_capacity(files.len());
    for info in files {
        let name = FileName::new(&info.name)
            .context("the camera lists a file whose name could lead out of the folder")?;
        if last.is_some_and(|last| info.name.as_str() <= last) {
            bail!("expected the camera's files in order, found {name} again or too late");
        }
        last = Some(&info.name);
        listed.push(Listed {
            name,
            bytes: info.bytes,
        });
    }
    Ok(listed)
}

/// Most files that a camera can list. Its list has no end of its own.
const MAX_FILES: usize = 1_000_000;

/// Lists all files of a kind.
fn list(client: &mut Client, kind: FileKind) -> Result<Vec<Listed>> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let last = all.last().map(|file| &file.name);
        let after = last.map_or_else(String::new, ToString::to_string);
        match client.ask(Command::ListFiles { kind, after })? {
            Answer::Files(files) if files.is_empty() => return Ok(all),
            Answer::Files(files) => {
                let more = checked(&files, last)?;
                all.extend(more);
                if all.len() > MAX_FILES {
                    bail!("the camera lists more than {MAX_FILES} files, more than its disk holds");
                }
            }
            other => return unexpected(&other),
        }
    }
}

/// Fetches a file under a temporary name, and renames it when it is complete.
fn fetch(
    client: &mut Client,
    kind: FileKind,
    file: &Listed,
    path: &Path,
    json: bool,
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let partial = folder.join(format!(".{}.part", file.name));
    let failed = || format!("cannot write {}", partial.display());
    let mut written: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&partial)
        .with_context(failed)?;
    let offset_bytes = written
        .stream_position()
        .and(written.metadata())
        .with_context(failed)?
        .len();
    let bar = progress_bar(file.bytes, json || file.bytes < 1 << 20);
    bar.set_position(offset_bytes);
    client.fetch(kind, file.name.as_str(), offset_bytes, |bytes, _| {
        bar.inc(bytes.len() as u64);
        written.write_all(bytes).with_context(failed)
    })?;
    bar.finish_and_clear();
    written.sync_all().with_context(failed)?;
    fs::rename(&partial, path).with_context(failed)
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    const KINDS: [FileKind; 3] = [FileKind::Ng, FileKind::Ok, FileKind::Recording];

    fn infos(names: &[&str]) -> Vec<FileInfo> {
        let info = |name: &&str| FileInfo {
            name: (*name).to_owned(),
            bytes: 1,
        };
        names.iter().map(info).collect()
    }

    #[test]
    fn a_list_with_a_name_that_leads_out_of_the_folder_is_refused_whole() {
        for name in [
            "../../.ssh/authorized_keys",
            "/home/engineer/signing.key",
            "..",
            ".profile",
            "a/../../b",
            "",
            "a\x1b[2J.png",
        ] {
            let error = checked(&infos(&[name]), None).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains("expected a"), "{text}");
            assert!(!text.contains(char::is_control));
            assert!(checked(&infos(&["!.png", name]), None).is_err());
        }
    }

    #[test]
    fn a_camera_cannot_list_files_for_ever() {
        let first = checked(&infos(&["1-NG.png", "2-NG.png"]), None).unwrap();
        let last = first.last().map(|file| &file.name);
        assert!(checked(&infos(&["3-NG.png"]), last).is_ok());
        for names in [
            &["1-NG.png", "2-NG.png"][..],
            &["2-NG.png"],
            &["4", "3"],
            &["3", "3"],
        ] {
            assert!(checked(&infos(names), last).is_err(), "{names:?}");
        }
    }

    proptest! {
        /// Mostly pieces of paths, so that many names come close to leading out of the folder.
        #[test]
        fn nothing_is_written_outside_the_folder_whatever_the_camera_sends(
            names in prop::collection::vec(r"([./\\a~: \x00\n]|\.\./|\.png|\PC){0,12}", 1..4),
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let out = Path::new("/out");
            for file in checked(&infos(&names), None).unwrap_or_default() {
                for kind in KINDS {
                    let path = path(out, kind, &file.name);
                    let inside = path.strip_prefix(out).unwrap();
                    let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
                    prop_assert!(inside.components().all(normal), "{}", path.display());
                    // The same holds for the temporary file beside it.
                    let partial = path.with_file_name(format!(".{}.part", file.name));
                    prop_assert_eq!(partial.parent(), path.parent());
                }
            }
        }
    }
}
