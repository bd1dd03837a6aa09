//! `cargo xtask endurance`: runs the camera's program on an endless replay, with a station that
//! takes every report, for a number of frames or seconds. Its memory, threads and open files must
//! not grow.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::vm::ledger::Ledger;
use crate::vm::station::{Station, access_list};
use crate::vm::tool::{last_lines, wait_at_most};
use crate::workspace::target;

/// Time after which caches, buffers and the stores on disk have filled.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// Frames until then, on a machine that is too slow for the rate.
const SETTLED_FRAMES: u64 = 1_200;
/// Fraction of the wanted frames after which a short run counts as settled.
const SETTLED_FRACTION: f64 = 0.1;
/// Largest allowed growth of the memory after the run has settled.
const MAX_GROWTH_MB: f64 = 5.0;
/// Size of the camera's journal, small enough to be filled many times over.
const JOURNAL_MB: u64 = 8;
/// Size of the camera's image store, small enough to be filled many times over.
const IMAGES_MB: u64 = 16;

/// Most that the copies of events take.
const EVENTS_MB: u64 = 16;

const STATION: &str = "endurance";

/// The command line.
struct Options {
    program: PathBuf,
    package: PathBuf,
    trust: PathBuf,
    images: PathBuf,
    frames: u64,
    seconds: f64,
    rate: Option<f64>,
    pictures: bool,
    station: bool,
    /// Seconds after which camera or station is killed, in turns.
    kill_every_s: Option<f64>,
}

/// What the camera's process uses at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    memory_mb: f64,
    threads: u64,
    open_files: u64,
    state_files: u64,
    state_mb: f64,
}

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = parse(root, arguments)?;
    let folder = std::env::temp_dir().join(format!("awr-endurance-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let measured = measure(&options, &folder);
    if measured.is_err() {
        eprintln!("log: {}", folder.join("log").display());
    } else {
        fs::remove_dir_all(&folder).ok();
    }
    measured
}

/// A run of the camera's program from a start to its end or to a kill, and how it has grown.
#[derive(Debug, Default)]
struct Growth {
    settled: Option<Usage>,
    most: Usage,
}

impl Growth {
    /// Fails where the program takes more than it did when it had settled.
    /// The session of a station that was killed has its threads and its socket for a while.
    fn check(&self, last: &Usage, with_kills: bool) -> Result<()> {
        let Some(first) = self.settled else {
            return Ok(());
        };
        let growth = self.most.memory_mb - first.memory_mb;
        println!(
            "growth since the run settled: {:+.1} MB (peak {growth:+.1}), {:+} threads, {:+} files",
            last.memory_mb - first.memory_mb,
            last.threads as i64 - first.threads as i64,
            last.open_files as i64 - first.open_files as i64
        );
        ensure!(
            growth <= MAX_GROWTH_MB,
            "memory grew by {growth:.1} MB; at most {MAX_GROWTH_MB} MB are allowed"
        );
        let most = if with_kills { last } else { &self.most };
        ensure!(
            most.threads <= first.threads,
            "threads grew from {} to {}",
            first.threads,
            most.threads
        );
        // A journal segment, a picture and a metrics request may be open for a moment.
        ensure!(
            most.open_files <= first.open_files + 4,
            "open files grew from {} to {}",
            first.open_files,
            most.open_files
        );
        let bound = (JOURNAL_MB + IMAGES_MB + EVENTS_MB + 2) as f64;
        ensure!(
            self.most.state_mb <= bound,
            "{:.1} MB on disk; at most {bound} MB are allowed",
            self.most.state_mb
        );
        Ok(())
    }
}

fn measure(options: &Options, folder: &Path) -> Result<()> {
    let mut camera = Camera::start(options, folder)?;
    let started = Instant::now();
    let (mut begun, mut killed) = (Instant::now(), Instant::now());
    let mut kills = [0_u32; 2];
    let mut ledger = Ledger::default();
    let connect = |camera: &Camera, ledger: &Ledger| match options.station {
        true => Station::tcp(camera.tcp, STATION, ledger).map(Some),
        false => Ok(None),
    };
    let mut station = connect(&camera, &ledger)?;
    let mut growth = Growth::default();
    let mut sampled = Instant::now();
    let mut minutes = 0;
    // Frames of the programs that were killed, and of the one that runs.
    let (mut frames_before, mut frames, mut received_bytes) = (0, 0, 0);
    while frames_before + frames < options.frames
        || started.elapsed().as_secs_f64() < options.seconds
    {
        match &mut station {
            Some(station) => {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(200) {
                    station.receive(&mut ledger)?;
                }
                let last = ledger.last();
                if last > 0 {
                    station.acknowledge(&mut ledger, last)?;
                }
                ledger.clear();
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
        let is_due = |every: f64| killed.elapsed().as_secs_f64() > every;
        if options.kill_every_s.is_some_and(is_due) {
            killed = Instant::now();
            received_bytes += station.as_ref().map_or(0, |station| station.received_bytes);
            // In turns. Without a word to the other side, and with records under way.
            if kills[0] > kills[1] {
                kills[1] += 1;
                drop(station.take());
            } else {
                kills[0] += 1;
                growth.check(&camera.usage()?, true)?;
                drop(camera);
                camera = Camera::start(options, folder)?;
                frames_before += std::mem::take(&mut frames);
                (growth, begun) = (Growth::default(), Instant::now());
            }
            // The first record must be the one after the last that was acknowledged.
            station = connect(&camera, &ledger)?;
        }
        if sampled.elapsed() < Duration::from_secs(1) {
            continue;
        }
        sampled = Instant::now();
        frames = camera.frames()?;
        let usage = camera.usage()?;
        let is_settled = (begun.elapsed() > SETTLED_AFTER && frames >= SETTLED_FRAMES)
            || (options.frames > 0
                && frames as f64 > SETTLED_FRACTION * options.frames as f64
                && begun.elapsed().as_secs() > 5);
        if is_settled && growth.settled.is_none() {
            growth.settled = Some(usage);
            growth.most = usage;
            say("settled", frames_before + frames, started.elapsed(), &usage);
        }
        growth.most = growth.most.maximum(&usage);
        let minute = started.elapsed().as_secs() / 60;
        if std::mem::replace(&mut minutes, minute) != minute {
            say("", frames_before + frames, started.elapsed(), &usage);
        }
    }
    frames += frames_before;
    let seconds = started.elapsed().as_secs_f64();
    let last = camera.usage()?;
    say("end", frames, started.elapsed(), &last);
    say("most", frames, started.elapsed(), &growth.most);
    received_bytes += station.map_or(0, |station| station.received_bytes);
    // Records are numbered from 1, and the station fails where one is missing.
    println!(
        "{frames} frames in {seconds:.0} s, {:.1} frames/s; the station took {} records, \
         {:.2} MB/s; the camera was killed {} times, the station {} times",
        frames as f64 / seconds,
        ledger.acknowledged(),
        received_bytes as f64 / 1e6 / seconds,
        kills[0],
        kills[1]
    );
    ensure!(
        growth.settled.is_some() || kills[0] > 0,
        "the run was too short to measure growth; run it for longer"
    );
    growth.check(&last, options.kill_every_s.is_some())?;
    camera.stop()
}

/// Prints a line of the log.
fn say(what: &str, frames: u64, at: Duration, usage: &Usage) {
    println!(
        "{:>7} s {frames:>9} frames {:>6.1} MB {} threads {:>3} open files; on disk {:>5} files \
         {:>5.1} MB {what}",
        at.as_secs(),
        usage.memory_mb,
        usage.threads,
        usage.open_files,
        usage.state_files,
        usage.state_mb
    );
}

impl Usage {
    fn maximum(&self, other: &Self) -> Self {
        Self {
            memory_mb: self.memory_mb.max(other.memory_mb),
            threads: self.threads.max(other.threads),
            open_files: self.open_files.max(other.open_files),
            state_files: self.state_files.max(other.state_files),
            state_mb: self.state_mb.max(other.state_mb),
        }
    }
}

/// `edge-runtime run`, killed when dropped.
struct Camera {
    child: Child,
    folder: PathBuf,
    tcp: SocketAddr,
    http: SocketAddr,
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Camera {
    fn start(options: &Options, folder: &Path) -> Result<Self> {
        let path = |path: &Path| serde_json::to_string(&path.to_string_lossy());
        let rate = match options.rate {
            Some(rate) => format!("{rate:?}"),
            None => "\"maximum\"".to_owned(),
        };
        let pictures = if options.pictures { "all" } else { "ng" };
        let text = format!(
            "name = \"endurance\"\nstate = \"state\"\n[model]\npackage = {}\ntrust = [{}]\n\
             [capture]\nkind = \"replay\"\npath = {}\nspeed = {rate}\nrepeat = true\n\
             [report]\nheat_map = \"{pictures}\"\nthumbnail = \"{pictures}\"\n\
             [link]\ntcp = \"127.0.0.1:0\"\n[metrics]\nhttp = \"127.0.0.1:0\"\n\
             [journal]\nmax_mb = {JOURNAL_MB}\n[images]\nmax_mb = {IMAGES_MB}\nok_one_in = 100\n",
            path(&options.package)?,
            path(&options.trust)?,
            path(&options.images)?,
        );
        fs::write(folder.join("camera.toml"), text).context("writing camera.toml")?;
        fs::create_dir_all(folder.join("state"))?;
        fs::write(folder.join("state/stations"), access_list(&[STATION])?)?;
        // That of a program that was killed.
        fs::remove_file(folder.join("state/endpoints.json")).ok();
        let child = Command::new(&options.program)
            .args(["run", "--config", "camera.toml"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()
            .with_context(|| format!("running {}", options.program.display()))?;
        let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
        let mut camera = Self {
            child,
            folder: folder.to_owned(),
            tcp: nowhere,
            http: nowhere,
        };
        let started = Instant::now();
        let text = loop {
            if let Ok(text) = fs::read_to_string(folder.join("state/endpoints.json")) {
                break text;
            }
            if camera.child.try_wait()?.is_some() || started.elapsed() > Duration::from_secs(60) {
                bail!(
                    "the camera did not start: {}",
                    last_lines(&folder.join("log"), 2)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let found: serde_json::Value = serde_json::from_str(&text)?;
        let address = |key: &str| -> Result<SocketAddr> {
            Ok(found[key].as_str().context("no address")?.parse()?)
        };
        (camera.tcp, camera.http) = (address("tcp")?, address("http")?);
        Ok(camera)
    }

    fn frames(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(self.http).context("asking for metrics")?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: endurance\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("awr_frames_total "));
        line.and_then(|value| value.parse().ok())
            .context("no awr_frames_total among the metrics")
    }

    fn usage(&self) -> Result<Usage> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status")).context("the camera has ended")?;
        let value = |key: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(key));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .with_context(|| format!("no {key} in the process's status"))
        };
        let mut usage = Usage {
            memory_mb: value("VmRSS:")? as f64 / 1024.0,
            threads: value("Threads:")?,
            open_files: fs::read_dir(process.join("fd"))?.count() as u64,
            ..Usage::default()
        };
        add_files(&self.folder.join("state"), &mut usage);
        Ok(usage)
    }

    /// Stops it as a service manager does, with SIGTERM.
    fn stop(mut self) -> Result<()> {
        Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .context("running kill")?;
        match wait_at_most(&mut self.child, Duration::from_secs(30))? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the camera ended with {status}"),
            None => bail!("the camera did not stop within 30 s of SIGTERM"),
        }
    }
}

/// Adds the files below `folder`. Files that disappear meanwhile do not count.
fn add_files(folder: &Path, usage: &mut Usage) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => add_files(&entry.path(), usage),
            Ok(metadata) => {
                usage.state_files += 1;
                usage.state_mb += metadata.len() as f64 / f64::from(1 << 20);
            }
            Err(_) => {}
        }
    }
}

fn parse(root: &Path, arguments: &[&str]) -> Result<Options> {
    let mut options = Options {
        program: target(root).join("debug/edge-runtime"),
        package: PathBuf::new(),
        trust: PathBuf::new(),
        images: PathBuf::new(),
        frames: 0,
        seconds: 0.0,
        rate: None,
        pictures: false,
        station: true,
        kill_every_s: None,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--all-pictures" => {
                options.pictures = true;
                continue;
            }
            "--no-station" => {
                options.station = false;
                continue;
            }
            _ => {}
        }
        let value = *words
            .next()
            .with_context(|| format!("{word} needs a value"))?;
        let number = || {
            value
                .parse::<f64>()
                .with_context(|| format!("{word} needs a number, found `{value}`"))
        };
        match *word {
            "--program" => options.program = std::path::absolute(value)?,
            "--package" => options.package = std::path::absolute(value)?,
            "--trust" => options.trust = std::path::absolute(value)?,
            "--images" => options.images = std::path::absolute(value)?,
            "--frames" => options.frames = number()? as u64,
            "--seconds" => options.seconds = number()?,
            "--rate" => options.rate = Some(number()?),
            "--kill-every" => options.kill_every_s = Some(number()?),
            other => bail!("unknown argument `{other}`; `cargo xtask help` lists them"),
        }
    }
    for (name, path) in [
        ("--package", &options.package),
        ("--trust", &options.trust),
        ("--images", &options.images),
        ("--program", &options.program),
    ] {
        ensure!(path.exists(), "{name}: {} does not exist", path.display());
    }
    ensure!(
        options.frames > 0 || options.seconds > 0.0,
        "the length of the run is missing: give --frames N or --seconds N"
    );
    Ok(options)
}
