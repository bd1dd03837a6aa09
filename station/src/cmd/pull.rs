//! `station pull`: fetches frames and recordings from a camera, for the next training.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use proto::message::{Answer, Command, FileInfo, FileKind, Start};
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
            for info in list(&mut client, kind)? {
                let path = self.out.join(folder(kind, &info.name)).join(&info.name);
                if path.exists() {
                    present += 1;
                    continue;
                }
                match fetch(&mut client, kind, &info, &path, json) {
                    Ok(()) => fetched += 1,
                    // The camera may have deleted it meanwhile, to make room for newer files.
                    Err(error) if error.is::<Refused>() => {
                        eprintln!("{}: {error:#}", info.name);
                        gone += 1;
                    }
                    Err(error) => return Err(error).with_context(|| info.name),
                }
            }
        }
        if json {
            print_json(json!({ "fetched": fetched, "present": present, "gone": gone }))?;
        } else {
            println!(
                "{fetched} files fetched, {present} existed already, {gone} no longer on the camera"
            );
        }
        Ok(())
    }
}

/// The folder in OUT for a file.
fn folder(kind: FileKind, name: &str) -> &'static str {
    match kind {
        FileKind::Recording => "recordings",
        _ if !name.ends_with(".png") => "maps",
        FileKind::Ok => "train/good",
        FileKind::Ng => "test/ng",
    }
}

/// Lists all files of a kind.
fn list(client: &mut Client, kind: FileKind) -> Result<Vec<FileInfo>> {
    let mut all: Vec<FileInfo> = Vec::new();
    loop {
        let after = all
            .last()
            .map_or_else(String::new, |info| info.name.clone());
        match client.ask(Command::ListFiles { kind, after })? {
            Answer::Files(files) if files.is_empty() => return Ok(all),
            Answer::Files(files) => all.extend(files),
            other => return unexpected(&other),
        }
    }
}

/// Fetches a file under a temporary name, and renames it when it is complete.
fn fetch(
    client: &mut Client,
    kind: FileKind,
    info: &FileInfo,
    path: &Path,
    json: bool,
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let partial = folder.join(format!(".{}.part", info.name));
    let failed = || format!("cannot write {}", partial.display());
    let mut file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&partial)
        .with_context(failed)?;
    let offset_bytes = file
        .stream_position()
        .and(file.metadata())
        .with_context(failed)?
        .len();
    let bar = progress_bar(info.bytes, json || info.bytes < 1 << 20);
    bar.set_position(offset_bytes);
    let command = Command::FetchFile {
        kind,
        name: info.name.clone(),
        offset_bytes,
    };
    client.fetch(command, offset_bytes, |bytes, _| {
        bar.inc(bytes.len() as u64);
        file.write_all(bytes).with_context(failed)
    })?;
    bar.finish_and_clear();
    file.sync_all().with_context(failed)?;
    fs::rename(&partial, path).with_context(failed)
}
