//! A disk with a volatile write cache: what was not flushed is lost at a power cut, in part or
//! altogether, and so writes also reach the medium in another order than they were made.
//!
//! In: requests of QEMU over NBD, on a Unix socket. Out: the medium, a file of the host. Writes are
//! acknowledged when they are in the cache. A flush, or a write that forces unit access, moves them to
//! the medium. When the connection ends, each page that is still in the cache gets any of its
//! contents since the last flush, as on a disk that writes its cache back in an order of its own.
//!
//! The time between a write and its flush is so short that cuts at random moments do not hit it. So
//! the disk itself chooses the moment: it stops after one of the next writes.
//!
//! NBD is used because every QEMU has it and needs no root for it. The protocol is described in
//! doc/proto.md of <https://github.com/NetworkBlockDevice/nbd>.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The smallest unit that the disk writes whole or not at all: a page of flash memory. ext4 needs its
/// superblock whole, which takes two of the older sectors of 512 bytes.
const PAGE_BYTES: usize = 4_096;
/// Longest request, so that a wrong length does not fill the memory. QEMU splits longer ones.
const MAX_REQUEST_BYTES: usize = 32 << 20;

type Page = [u8; PAGE_BYTES];

/// What a power cut did to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Pages whose last contents reached the medium without a flush.
    pub(crate) kept: usize,
    /// Pages that have older contents on the medium.
    pub(crate) lost: usize,
}

/// The pages that were written since they were last flushed.
struct Cache {
    medium: File,
    /// All contents of each page since its last flush, in order.
    pages: BTreeMap<u64, Vec<Page>>,
}

impl Cache {
    fn new(medium: File) -> Self {
        Self {
            medium,
            pages: BTreeMap::new(),
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        for (number, within, here) in pieces(offset, bytes.len()) {
            let piece = &mut bytes[here];
            match self.pages.get(&number).and_then(|contents| contents.last()) {
                Some(page) => piece.copy_from_slice(&page[within..within + piece.len()]),
                None => self
                    .medium
                    .read_exact_at(piece, number * PAGE_BYTES as u64 + within as u64)?,
            }
        }
        Ok(())
    }

    /// With `force`, the bytes are on the medium when this returns.
    fn write(&mut self, offset: u64, bytes: &[u8], force: bool) -> io::Result<()> {
        for (number, within, here) in pieces(offset, bytes.len()) {
            let mut page = [0; PAGE_BYTES];
            self.read(number * PAGE_BYTES as u64, &mut page)?;
            page[within..within + here.len()].copy_from_slice(&bytes[here]);
            if force {
                self.pages.remove(&number);
                self.put(number, &page)?;
            } else {
                self.pages.entry(number).or_default().push(page);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for (number, contents) in std::mem::take(&mut self.pages) {
            if let Some(last) = contents.last() {
                self.put(number, last)?;
            }
        }
        Ok(())
    }

    /// Loses the power. Each page keeps its last contents in `keep_percent` of all cases, and
    /// otherwise gets older ones: any since the last flush, or those of the last flush.
    fn cut(&mut self, keep_percent: u64, random: &mut Random) -> io::Result<Cut> {
        let mut cut = Cut::default();
        for (number, contents) in std::mem::take(&mut self.pages) {
            let versions = contents.len();
            let chosen = if random.below(100) < keep_percent {
                cut.kept += 1;
                versions
            } else {
                cut.lost += 1;
                match keep_percent {
                    0 => 0,
                    _ => random.below(versions as u64) as usize,
                }
            };
            if let Some(before) = chosen.checked_sub(1) {
                self.put(number, &contents[before])?;
            }
        }
        Ok(cut)
    }

    fn put(&self, number: u64, page: &Page) -> io::Result<()> {
        self.medium.write_all_at(page, number * PAGE_BYTES as u64)
    }
}

/// The pages of `length` bytes from `offset` on: number of the page, offset in it, and range of the
/// bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == length {
            return None;
        }
        let position = offset + at as u64;
        let within = (position % PAGE_BYTES as u64) as usize;
        let end = length.min(at + PAGE_BYTES - within);
        let piece = (position / PAGE_BYTES as u64, within, at..end);
        at = end;
        Some(piece)
    })
}

/// Writes after which the disk may stop, once it is told to.
const WRITES_TO_STOP: u64 = 12;
/// Longest time to wait for these writes.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// A disk for one boot. Dropping it waits for the power cut, which is the end of QEMU.
pub(super) struct Disk {
    socket: PathBuf,
    /// The number of writes after which the disk stops, or `NEVER`.
    writes_left: Arc<AtomicU64>,
    stop_after: u64,
    /// Told when it has stopped.
    stopped: Receiver<()>,
    server: Option<JoinHandle<Result<Cut>>>,
}

const NEVER: u64 = u64::MAX;

impl Disk {
    /// Serves `medium` on `socket`, for one connection.
    pub(super) fn serve(medium: &Path, socket: &Path) -> Result<Self> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
        let mut random = Random(seed);
        // Disks that lose all, none and some of their cache fail in different ways.
        let keep_percent = [0, 100, 20, 50, 80][random.below(5) as usize];
        Self::serve_with(medium, socket, keep_percent, random)
    }

    fn serve_with(
        medium: &Path,
        socket: &Path,
        keep_percent: u64,
        mut random: Random,
    ) -> Result<Self> {
        let file = File::options().read(true).write(true).open(medium);
        let file = file.with_context(|| format!("opening {}", medium.display()))?;
        fs::remove_file(socket).ok();
        let listener = UnixListener::bind(socket);
        let listener = listener.with_context(|| format!("listening on {}", socket.display()))?;
        let writes_left = Arc::new(AtomicU64::new(NEVER));
        let (stop, stopped) = channel();
        let stop_after = 1 + random.below(WRITES_TO_STOP);
        let left = Arc::clone(&writes_left);
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().context("waiting for QEMU")?;
            // Another connection is refused from now on.
            drop(listener);
            let mut cache = Cache::new(file);
            let ended = transmit(&stream, &mut cache, &left);
            stop.send(()).ok();
            // A disk without power does not answer. An error would tell the guest something.
            io::copy(&mut &stream, &mut io::sink()).ok();
            let cut = cache.cut(keep_percent, &mut random)?;
            match ended {
                // QEMU was killed, which ends the connection anywhere.
                Err(error) if is_end(&error) => {}
                ended => ended.context("serving the disk")?,
            }
            Ok(cut)
        });
        Ok(Self {
            socket: socket.to_owned(),
            writes_left,
            stop_after,
            stopped,
            server: Some(server),
        })
    }

    /// Stops the disk after one of the next writes, if there are any; QEMU must be killed then.
    pub(super) fn stop(&self) {
        self.writes_left.store(self.stop_after, Ordering::Relaxed);
        self.stopped.recv_timeout(STOPS_WITHIN).ok();
    }

    /// Waits for the end of the connection, and says what the power cut did.
    pub(super) fn cut(mut self) -> Result<Cut> {
        self.join()
    }

    fn join(&mut self) -> Result<Cut> {
        // If QEMU never came, this connection is the one that the server waits for.
        UnixStream::connect(&self.socket).ok();
        match self.server.take().map(JoinHandle::join) {
            Some(Ok(cut)) => cut,
            Some(Err(_)) => anyhow::bail!("the disk's thread panicked"),
            None => Ok(Cut::default()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.server.is_some()
            && let Err(error) = self.join()
        {
            eprintln!("    the disk: {error:#}");
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

// The numbers of NBD's protocol.
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// Handshake flags, "fixed newstyle" and "no zeroes": options are answered, without padding.
const HANDSHAKE_FLAGS: u16 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 1 << 31 | 1;
const INFO_EXPORT: u16 = 0;
/// "Has flags", "send flush" and "send FUA": without the last two QEMU shows the guest no cache.
const TRANSMISSION_FLAGS: u16 = 1 | 1 << 2 | 1 << 3;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FORCE_UNIT_ACCESS: u16 = 1;
const INVALID: u32 = 22;

/// Answers requests until the connection ends, or until no writes are left.
fn transmit(stream: &UnixStream, cache: &mut Cache, writes_left: &AtomicU64) -> io::Result<()> {
    let (mut reader, mut writer) = (stream, BufWriter::new(stream));
    let size = cache.medium.metadata()?.len();
    shake_hands(&mut reader, &mut writer, size)?;
    let mut bytes = Vec::new();
    loop {
        if u32::from_be_bytes(take(&mut reader)?) != REQUEST_MAGIC {
            return Err(io::Error::other("expected a request of NBD"));
        }
        let flags = u16::from_be_bytes(take(&mut reader)?);
        let command = u16::from_be_bytes(take(&mut reader)?);
        let cookie: [u8; 8] = take(&mut reader)?;
        let offset = u64::from_be_bytes(take(&mut reader)?);
        let length = u32::from_be_bytes(take(&mut reader)?) as usize;
        if length > MAX_REQUEST_BYTES {
            return Err(io::Error::other(format!("a request of {length} bytes")));
        }
        bytes.clear();
        if matches!(command, READ | WRITE) {
            bytes.resize(length, 0);
        }
        if command == WRITE {
            reader.read_exact(&mut bytes)?;
        }
        let end = offset.checked_add(length as u64);
        let is_inside = end.is_some_and(|end| end <= size);
        let error = match command {
            READ | WRITE if !is_inside => INVALID,
            READ => cache.read(offset, &mut bytes).map(|()| 0)?,
            WRITE => {
                let force = flags & FORCE_UNIT_ACCESS != 0;
                cache.write(offset, &bytes, force).map(|()| 0)?
            }
            FLUSH => cache.flush().map(|()| 0)?,
            DISCONNECT => return Ok(()),
            _ => INVALID,
        };
        if command == WRITE && writes_left.load(Ordering::Relaxed) != NEVER {
            let before = writes_left.fetch_sub(1, Ordering::Relaxed);
            if before <= 1 {
                return Ok(());
            }
        }
        writer.write_all(&REPLY_MAGIC.to_be_bytes())?;
        writer.write_all(&error.to_be_bytes())?;
        writer.write_all(&cookie)?;
        if command == READ && error == 0 {
            writer.write_all(&bytes)?;
        }
        writer.flush()?;
    }
}

/// The handshake: every option is refused, up to the one that begins the transmission.
fn shake_hands(reader: &mut impl Read, writer: &mut impl Write, size: u64) -> io::Result<()> {
    writer.write_all(b"NBDMAGICIHAVEOPT")?;
    writer.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    writer.flush()?;
    let _client_flags: [u8; 4] = take(reader)?;
    loop {
        if u64::from_be_bytes(take(reader)?) != OPTION_MAGIC {
            return Err(io::Error::other("expected an option of NBD"));
        }
        let option = u32::from_be_bytes(take(reader)?);
        let length = u32::from_be_bytes(take(reader)?) as usize;
        if length > MAX_REQUEST_BYTES {
            return Err(io::Error::other(format!("an option of {length} bytes")));
        }
        reader.read_exact(&mut vec![0; length])?;
        let mut reply = |kind: u32, data: &[u8]| -> io::Result<()> {
            writer.write_all(&OPTION_REPLY_MAGIC.to_be_bytes())?;
            writer.write_all(&option.to_be_bytes())?;
            writer.write_all(&kind.to_be_bytes())?;
            writer.write_all(&(data.len() as u32).to_be_bytes())?;
            writer.write_all(data)
        };
        if option != OPTION_GO {
            reply(REPLY_UNSUPPORTED, &[])?;
            writer.flush()?;
            continue;
        }
        let mut export = INFO_EXPORT.to_be_bytes().to_vec();
        export.extend(size.to_be_bytes());
        export.extend(TRANSMISSION_FLAGS.to_be_bytes());
        reply(REPLY_INFO, &export)?;
        reply(REPLY_ACK, &[])?;
        return writer.flush();
    }
}

fn take<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Knuth's linear congruential generator, good enough to pick moments.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number from 0 to below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that speaks to a disk as QEMU does.
    struct Client {
        stream: UnixStream,
        next: u64,
    }

    impl Client {
        fn connect(socket: &Path) -> Self {
            let mut stream = UnixStream::connect(socket).unwrap();
            let hello: [u8; 18] = take(&mut stream).unwrap();
            assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
            stream.write_all(&[0, 0, 0, 3]).unwrap();
            for (option, data) in [(8_u32, &[][..]), (OPTION_GO, &[0; 6])] {
                stream.write_all(b"IHAVEOPT").unwrap();
                stream.write_all(&option.to_be_bytes()).unwrap();
                let length = u32::try_from(data.len()).unwrap();
                stream.write_all(&length.to_be_bytes()).unwrap();
                stream.write_all(data).unwrap();
            }
            let refused: [u8; 20] = take(&mut stream).unwrap();
            assert_eq!(refused[12..16], REPLY_UNSUPPORTED.to_be_bytes());
            let export: [u8; 32] = take(&mut stream).unwrap();
            assert_eq!(export[22..30], (16 * PAGE_BYTES as u64).to_be_bytes());
            let _ack: [u8; 20] = take(&mut stream).unwrap();
            Self { stream, next: 0 }
        }

        /// The error of a request, and the bytes that were read.
        fn ask(&mut self, command: (u16, u16), page: u64, data: &[u8]) -> (u32, Vec<u8>) {
            let (command, flags) = command;
            self.next += 1;
            let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
            request.extend(flags.to_be_bytes());
            request.extend(command.to_be_bytes());
            request.extend(self.next.to_be_bytes());
            request.extend((page * PAGE_BYTES as u64).to_be_bytes());
            request.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            if command == WRITE {
                request.extend(data);
            }
            self.stream.write_all(&request).unwrap();
            assert_eq!(take(&mut self.stream).unwrap(), REPLY_MAGIC.to_be_bytes());
            let error = u32::from_be_bytes(take(&mut self.stream).unwrap());
            assert_eq!(take(&mut self.stream).unwrap(), self.next.to_be_bytes());
            let mut bytes = data.to_vec();
            if command == READ && error == 0 {
                self.stream.read_exact(&mut bytes).unwrap();
            }
            (error, bytes)
        }

        fn write(&mut self, page: u64, value: u8) {
            let data = [value; PAGE_BYTES];
            assert_eq!(self.ask((WRITE, 0), page, &data).0, 0);
        }
    }

    /// The first byte of each page after a power cut; `requests` come before it.
    fn after(keep_percent: u64, seed: u64, requests: impl FnOnce(&mut Client)) -> (Vec<u8>, Cut) {
        let folder = std::env::temp_dir().join(format!(
            "awr-disk-{}-{keep_percent}-{seed}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&folder).unwrap();
        let (medium, socket) = (folder.join("medium"), folder.join("socket"));
        fs::write(&medium, [9; 16 * PAGE_BYTES]).unwrap();
        let disk = Disk::serve_with(&medium, &socket, keep_percent, Random(seed)).unwrap();
        let mut client = Client::connect(&socket);
        requests(&mut client);
        drop(client);
        let cut = disk.cut().unwrap();
        let bytes = fs::read(&medium).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        (bytes.chunks(PAGE_BYTES).map(|all| all[0]).collect(), cut)
    }

    #[test]
    fn what_was_flushed_or_forced_is_kept_and_the_rest_is_lost() {
        let (found, cut) = after(0, 1, |client| {
            client.write(1, 1);
            client.write(2, 1);
            assert_eq!(client.ask((FLUSH, 0), 0, &[]).0, 0);
            client.write(2, 2);
            client.write(3, 2);
            client.write(4, 2);
            let forced = (WRITE, FORCE_UNIT_ACCESS);
            assert_eq!(client.ask(forced, 4, &[3; PAGE_BYTES]).0, 0);
            // A part of a page leaves the rest of it.
            assert_eq!(client.ask((WRITE, 0), 3, &[4; 10]).0, 0);
            // Until the cut, the cache is read.
            let (_, seen) = client.ask((READ, 0), 0, &[0; 5 * PAGE_BYTES]);
            assert_eq!(seen[3 * PAGE_BYTES + 10], 2);
            let seen: Vec<u8> = seen.chunks(PAGE_BYTES).map(|all| all[0]).collect();
            assert_eq!(seen, [9, 1, 2, 4, 3]);
        });
        assert_eq!(found[..6], [9, 1, 1, 9, 3, 9]);
        assert_eq!(cut, Cut { kept: 0, lost: 2 });
    }

    #[test]
    fn a_part_of_the_cache_may_survive_in_any_order() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let (found, cut) = after(50, seed, |client| {
                client.write(1, 1);
                client.write(1, 2);
                client.write(2, 1);
            });
            assert_eq!(cut.kept + cut.lost, 2);
            seen.insert((found[1], found[2]));
        }
        let all = [(1, 1), (1, 9), (2, 1), (2, 9), (9, 1), (9, 9)];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
        let (found, cut) = after(100, 1, |client| client.write(1, 1));
        assert_eq!((found[1], cut), (1, Cut { kept: 1, lost: 0 }));
    }

    #[test]
    fn a_disk_that_is_told_to_stop_does_so_between_a_write_and_its_flush() {
        let folder = std::env::temp_dir().join(format!("awr-disk-{}-stop", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (medium, socket) = (folder.join("medium"), folder.join("socket"));
        fs::write(&medium, [9; 16 * PAGE_BYTES]).unwrap();
        let disk = Disk::serve_with(&medium, &socket, 0, Random(1)).unwrap();
        let mut client = Client::connect(&socket);
        client.stream.set_read_timeout(Some(STOPS_WITHIN)).unwrap();
        let last = disk.stop_after;
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            (1..last).for_each(|page| client.write(page, 1));
            assert_eq!(client.ask((FLUSH, 0), 0, &[]).0, 0);
            let mut ask = || client.write(last, 1);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut ask)).unwrap_err();
        });
        disk.stop();
        writer.join().unwrap();
        assert_eq!(disk.cut().unwrap(), Cut { kept: 0, lost: 1 });
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn requests_outside_and_unknown_ones_are_refused_and_nobody_need_come() {
        after(0, 1, |client| {
            let beyond = client.ask((READ, 0), 15, &[0; 2 * PAGE_BYTES]).0;
            let unknown = client.ask((9, 0), 0, &[]).0;
            assert_eq!([beyond, unknown], [INVALID; 2]);
        });
        let folder = std::env::temp_dir().join(format!("awr-disk-{}-alone", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("medium"), [0; PAGE_BYTES]).unwrap();
        let disk = Disk::serve(&folder.join("medium"), &folder.join("socket")).unwrap();
        disk.cut().unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
