//! The camera's program in a guest of its own: configured, fed, watched, and ended the hard way.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proto::message::CameraHello;

use super::boot::{Boot, Guest};
use super::devices::{Format, Pixels};
use super::ledger::Ledger;
use super::material::raw_frame;
use super::rig::{Rig, bytes, host};
use super::station::{Station, access_list};

/// For whatever an emulated guest does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TCP: u16 = 9750;
const HTTP: u16 = 9751;
const LOG: &str = "/tmp/camera.log";

/// Two frames that the model tells apart, and the threshold between them.
#[derive(Clone, Debug)]
pub(crate) struct Pictures {
    pub(crate) format: Format,
    pub(crate) good: Vec<u8>,
    pub(crate) bad: Vec<u8>,
    pub(crate) threshold: f32,
}

/// A guest with the program, its model and two pictures (/etc/camera/{good,bad}.{raw,png}).
pub(crate) struct Camera {
    pub(crate) guest: Guest,
    pub(crate) pictures: Pictures,
}

/// What a guest with a camera is booted with.
pub(crate) fn boot_with(rig: &mut Rig, disk: Option<PathBuf>) -> Result<(Boot, Pictures)> {
    let pictures = pictures(rig)?;
    let material = rig.material()?;
    let folder = rig.folder().to_owned();
    let boot = Boot {
        files: vec![
            rig.edge_runtime()?,
            rig.feeder()?,
            host("/etc/camera/m.awr", material.package()),
            host("/etc/camera/k.key.pub", material.key()),
            bytes("/etc/camera/good.raw", &pictures.good),
            bytes("/etc/camera/bad.raw", &pictures.bad),
            host("/etc/camera/frames/bad.png", folder.join("bad.png")),
            host("/etc/camera/frames/good.png", folder.join("good.png")),
        ],
        ports: vec![TCP, HTTP],
        disk,
    };
    Ok((boot, pictures))
}

impl Camera {
    /// A guest in whose memory everything is.
    pub(crate) fn boot(rig: &mut Rig) -> Result<Self> {
        let (boot, pictures) = boot_with(rig, None)?;
        let guest = rig.boot(&boot)?;
        Ok(Self { guest, pictures })
    }

    /// Writes the configuration: what is the same everywhere, and `more`, from [capture] on.
    pub(crate) fn configure(&mut self, threshold: f32, more: &str) -> Result<()> {
        let text = format!(
            "name = \"camera in the VM\"\nstate = \"/state/camera\"\n\
             [model]\npackage = \"m.awr\"\ntrust = [\"k.key.pub\"]\nthreshold = {threshold:?}\n\
             [link]\ntcp = \"0.0.0.0:{TCP}\"\nserial = {{ path = \"/dev/cable\" }}\n\
             [metrics]\nhttp = \"0.0.0.0:{HTTP}\"\n[images]\nmax_mb = 0\n{more}\n"
        );
        self.guest
            .write("/etc/camera/camera.toml", text.as_bytes())?;
        self.guest.check("mkdir -p /state/camera")?;
        let list = access_list(&["line", "cable"])?;
        self.guest.write("/state/camera/stations", list.as_bytes())
    }

    /// The loopback as its camera. A loopback that nobody has written to is none yet.
    pub(crate) fn load_loopback(&mut self) -> Result<()> {
        self.guest.load_loopback(self.pictures.format)?;
        self.feed("good")
    }

    /// One frame into the loopback.
    pub(crate) fn feed(&mut self, picture: &str) -> Result<()> {
        let length = self.pictures.format.bytes();
        let command = format!("vm-feed /dev/video10 {length} 100 /etc/camera/{picture}.raw");
        self.guest.check(&command)?;
        Ok(())
    }

    /// Starts the program and waits until it is at work.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.guest.check("rm -f /state/camera/endpoints.json")?;
        let command = "edge-runtime run --config /etc/camera/camera.toml";
        self.guest.background("camera", command, LOG)?;
        let at_work = "[ -s /state/camera/endpoints.json ] || ! kill -0 $(cat /run/camera.pid)";
        self.guest.wait_until(at_work, PATIENCE)?;
        self.alive()
    }

    /// The program runs; else what it said last.
    pub(crate) fn alive(&mut self) -> Result<()> {
        if self.guest.run("kill -0 $(cat /run/camera.pid)")?.status != 0 {
            bail!("the program has ended: {}", self.last_words()?);
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.guest.check(
            "kill -KILL $(cat /run/camera.pid); while kill -0 $(cat /run/camera.pid) 2>/dev/null; do usleep 5000; done",
        )?;
        Ok(())
    }

    pub(crate) fn station(&self, name: &str, ledger: &Ledger) -> Result<Station> {
        Station::tcp(self.guest.address(TCP)?, name, ledger)
    }

    pub(crate) fn serial_station(&mut self, name: &str, ledger: &Ledger) -> Result<Station> {
        Station::serial(self.guest.serial()?, name, ledger)
    }

    /// A value of its metrics, such as `awr_frames_total`; 0 while it is not there.
    pub(crate) fn metric(&self, series: &str) -> Result<f64> {
        let text = self.http("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
    }

    /// Status line, head and body of a GET request.
    pub(crate) fn http(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.guest.address(HTTP)?)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: vm\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        read.with_context(|| format!("reading {path}"))?;
        Ok(text)
    }

    /// The end of its log.
    pub(crate) fn last_words(&mut self) -> Result<String> {
        let text = self.guest.check(&format!("tail -n 4 {LOG}"))?.text();
        Ok(text.replace('\n', " | "))
    }

    /// Runs a scenario's body; a failure comes with the end of the program's log.
    pub(crate) fn explain<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        body(self).map_err(|error| {
            let words = self.last_words().unwrap_or_default();
            anyhow::anyhow!("{error:#}; the program's log ends: {words}")
        })
    }
}

/// vivid as its camera. The guest scores about a frame a second; the parts that it cannot score are faults, and are
/// reported like all. `pictures`: which reports carry some.
pub(crate) fn vivid_capture(frames_a_second: f64, pictures: &str) -> String {
    format!(
        "[capture]\nkind = \"v4l2\"\ndevice = \"/dev/video0\"\nformat = \"GREY\"\nwidth_px = 320\nheight_px = 180\n\
         fps = {frames_a_second:?}\ntimeout_ms = 3000\n\
         [report]\nheat_map = \"{pictures}\"\nthumbnail = \"{pictures}\"\n"
    )
}

/// A camera that was started `before` starts counts more now.
pub(crate) fn check_boot(hello: &CameraHello, before: u32) -> Result<u32> {
    if hello.boot <= before {
        bail!("start number {} came after {before}", hello.boot);
    }
    Ok(hello.boot)
}

/// A good image of the material's in grey, the same with a drawn defect, and two that are nothing but defect. The model
/// may hardly be trained: what it scores lowest counts as good, and what it scores highest as bad.
fn pictures(rig: &mut Rig) -> Result<Pictures> {
    if let Some(pictures) = rig.pictures.clone() {
        return Ok(pictures);
    }
    let material = rig.material()?;
    let images = material.images("good")?;
    let image = raw_frame(images.first().context("no images")?)?;
    let plain: Vec<u8> = match image.format.pixels {
        Pixels::Grey => image.bytes,
        // The green channel is as good a grey as any.
        Pixels::Rgb => image.bytes.chunks(3).map(|pixel| pixel[1]).collect(),
    };
    let format = Format {
        pixels: Pixels::Grey,
        ..image.format
    };
    let drawn = draw_defect(&plain, format);
    let black = vec![0; plain.len()];
    let stripes = (0..plain.len())
        .map(|at| {
            if at % format.width_px % 16 < 8 {
                0
            } else {
                255
            }
        })
        .collect();
    let program = rig.camera_program()?;
    let mut scored = Vec::new();
    for frame in [plain, drawn, black, stripes] {
        let path = rig.folder().join("candidate.png");
        write_png(&path, &frame, format)?;
        scored.push((score(&program, &material.package(), &path)?, frame));
    }
    scored.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (Some((high, bad)), Some((low, good))) = (scored.pop(), scored.into_iter().next()) else {
        bail!("no pictures were scored");
    };
    // The guest's arithmetic may round otherwise.
    if high < low * 1.05 {
        bail!("the model scores all pictures between {low} and {high}: too close to be told apart");
    }
    write_png(&rig.folder().join("good.png"), &good, format)?;
    write_png(&rig.folder().join("bad.png"), &bad, format)?;
    let pictures = Pictures {
        format,
        good,
        bad,
        threshold: (low + high) / 2.0,
    };
    Ok(rig.pictures.insert(pictures).clone())
}

/// A black hole with a white rim.
fn draw_defect(frame: &[u8], format: Format) -> Vec<u8> {
    let mut drawn = frame.to_vec();
    let radius = format.height_px.min(format.width_px) / 5;
    for y in 0..format.height_px {
        for x in 0..format.width_px {
            let (across, down) = (
                x.abs_diff(format.width_px / 2),
                y.abs_diff(format.height_px / 2),
            );
            let squared = across * across + down * down;
            if squared < radius * radius {
                let rim = squared > radius * radius * 3 / 4;
                drawn[y * format.width_px + x] = if rim { 255 } else { 0 };
            }
        }
    }
    drawn
}

fn write_png(path: &Path, frame: &[u8], format: Format) -> Result<()> {
    let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
    let (width, height) = (format.width_px.try_into()?, format.height_px.try_into()?);
    let mut encoder = png::Encoder::new(BufWriter::new(file), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(frame)?;
    Ok(())
}

/// What the program itself says of an image, on the host.
fn score(program: &Path, package: &Path, image: &Path) -> Result<f32> {
    let started = Instant::now();
    let output = Command::new(program)
        .args(["score", "--json", "--package"])
        .arg(package)
        .arg(image)
        .output()
        .context("running edge-runtime score")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"score\": "));
    let value = line.and_then(|value| value.trim_end_matches(',').parse().ok());
    value.with_context(|| {
        let words = String::from_utf8_lossy(&output.stderr);
        format!(
            "edge-runtime score gave no score in {:.0} s: {}",
            started.elapsed().as_secs_f64(),
            words.trim()
        )
    })
}
