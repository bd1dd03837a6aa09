//! The camera's program in a guest: configures, starts, feeds, queries and kills it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use proto::message::CameraHello;

use super::boot::{Boot, Guest};
use super::ledger::Ledger;
use super::pictures::Pictures;
use super::rig::{Rig, bytes, host};
use super::station::{Station, access_list};

/// Longest time for anything that an emulated guest does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TCP: u16 = 9750;
pub(crate) const HTTP: u16 = 9751;
const LOG: &str = "/tmp/camera.log";

/// A guest with the camera's program, its model and the pictures (/etc/camera/good.raw and bad.raw,
/// and as PNG in /etc/camera/frames).
pub(crate) struct Camera {
    pub(crate) guest: Guest,
    pub(crate) pictures: Pictures,
}

/// The boot of a guest with a camera.
pub(crate) fn boot_with(rig: &mut Rig, disk: Option<PathBuf>) -> Result<(Boot, Pictures)> {
    let pictures = rig.pictures()?;
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
    /// Boots a guest without a disk.
    pub(crate) fn boot(rig: &mut Rig) -> Result<Self> {
        let (boot, pictures) = boot_with(rig, None)?;
        let guest = rig.boot(&boot)?;
        Ok(Self { guest, pictures })
    }

    /// Writes the configuration: what all scenarios have in common, and `more`, from [capture] on.
    /// Unless that says otherwise, frames may repeat.
    pub(crate) fn configure(&mut self, threshold: f32, more: &str) -> Result<()> {
        let repeating = match more.contains("[plausibility]") {
            true => "",
            false => "[plausibility]\nidentical_frames = 0\n",
        };
        let text = format!(
            "name = \"camera in the VM\"\nstate = \"/state/camera\"\n\
             [model]\npackage = \"m.awr\"\ntrust = [\"k.key.pub\"]\nthreshold = {threshold:?}\n\
             [link]\ntcp = \"0.0.0.0:{TCP}\"\nserial = {{ path = \"/dev/cable\", pictures = true }}\n\
             [metrics]\nhttp = \"0.0.0.0:{HTTP}\"\n[images]\nmax_mb = 0\n\
             {repeating}{more}\n"
        );
        self.guest
            .write("/etc/camera/camera.toml", text.as_bytes())?;
        self.guest.check("mkdir -p /state/camera")?;
        let list = access_list(&["line", "cable"])?;
        self.guest.write("/state/camera/stations", list.as_bytes())
    }

    /// Makes the loopback its camera. Programs see it as a camera only after the first frame.
    pub(crate) fn load_loopback(&mut self) -> Result<()> {
        self.guest.load_loopback(self.pictures.format)?;
        self.feed("good")
    }

    /// Writes one frame to the loopback.
    pub(crate) fn feed(&mut self, picture: &str) -> Result<()> {
        let length = self.pictures.format.bytes();
        let command = format!("vm-feed /dev/video10 {length} 100 /etc/camera/{picture}.raw");
        self.guest.check(&command)?;
        Ok(())
    }

    /// Starts the program and waits until it listens for stations.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.start_with("")
    }

    /// Starts the program with environment variables, such as `A=1 B=2`.
    pub(crate) fn start_with(&mut self, environment: &str) -> Result<()> {
        self.guest.check("rm -f /state/camera/endpoints.json")?;
        let command =
            format!("env {environment} edge-runtime run --config /etc/camera/camera.toml");
        self.guest.background("camera", &command, LOG)?;
        let listens = "[ -s /state/camera/endpoints.json ] || ! kill -0 $(cat /run/camera.pid)";
        self.guest.wait_until(listens, PATIENCE)?;
        self.alive()
    }

    /// Fails if the program has ended, with the end of its log.
    pub(crate) fn alive(&mut self) -> Result<()> {
        if self.guest.run("kill -0 $(cat /run/camera.pid)")?.status != 0 {
            bail!("the program has ended: {}", self.last_lines()?);
        }
        Ok(())
    }

    /// Ends the program with SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.guest.check(
            "kill -KILL $(cat /run/camera.pid); \
             while kill -0 $(cat /run/camera.pid) 2>/dev/null; do usleep 5000; done",
        )?;
        Ok(())
    }

    /// Where it listens for stations.
    pub(crate) fn tcp_address(&self) -> Result<SocketAddr> {
        self.guest.address(TCP)
    }

    /// Connects a station over TCP.
    pub(crate) fn station(&self, name: &str, ledger: &Ledger) -> Result<Station> {
        Station::tcp(self.tcp_address()?, name, ledger)
    }

    /// Connects a station over the serial port.
    pub(crate) fn serial_station(&mut self, name: &str, ledger: &Ledger) -> Result<Station> {
        Station::serial(self.guest.serial()?, name, ledger)
    }

    /// A value of its metrics, such as `awr_frames_total`; 0 while the series is absent.
    pub(crate) fn metric(&self, series: &str) -> Result<f64> {
        let text = self.http("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
    }

    /// The response to a GET request: status line, headers and body.
    pub(crate) fn http(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.guest.address(HTTP)?)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: vm\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        read.with_context(|| format!("reading {path}"))?;
        Ok(text)
    }

    /// The last lines of its log, joined into one.
    fn last_lines(&mut self) -> Result<String> {
        let text = self.guest.check(&format!("tail -n 4 {LOG}"))?.text();
        Ok(text.replace('\n', " | "))
    }

    /// Runs a scenario's body, and adds the end of the program's log to its error.
    pub(crate) fn explain<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        body(self).map_err(|error| {
            let log = self.last_lines().unwrap_or_default();
            anyhow::anyhow!("{error:#}; the program's log ends: {log}")
        })
    }
}

/// The configuration with vivid as the camera; `pictures` says which reports have pictures. The
/// guest scores about one frame per second; the parts that it cannot score are reported as faults.
pub(crate) fn vivid_capture(frames_a_second: f64, pictures: &str) -> String {
    format!(
        "[capture]\nkind = \"v4l2\"\ndevice = \"/dev/video0\"\nformat = \"GREY\"\n\
         width_px = 320\nheight_px = 180\nfps = {frames_a_second:?}\ntimeout_ms = 3000\n\
         exposure_to_stamp_us = {}\n\
         [report]\nheat_map = \"{pictures}\"\nthumbnail = \"{pictures}\"\n",
        // vivid stamps the end of a frame, and exposes for the whole interval.
        (1e6 / frames_a_second) as u64
    )
}

/// Checks that the camera's boot counter has grown, and returns it.
pub(crate) fn check_boot(hello: &CameraHello, before: u32) -> Result<u32> {
    if hello.boot <= before {
        bail!("the boot counter is {}; it was {before} before", hello.boot);
    }
    Ok(hello.boot)
}
