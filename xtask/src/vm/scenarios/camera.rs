//! The camera's program on the rig's devices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::boot::{Boot, Guest};
use crate::vm::material::raw_frame;
use crate::vm::rig::{Rig, bytes, host};

const PATIENCE: Duration = Duration::from_secs(60);
const HTTP: u16 = 9100;
const LINES: u32 = 16;
const GATE: u32 = 2;

/// Frames that the driver delivers become parts, and a defective one moves the gate.
pub(crate) fn loopback_to_gate(rig: &mut Rig) -> Result<()> {
    let material = rig.material()?;
    let frames: Vec<_> = material
        .images("good")?
        .iter()
        .map(|image| raw_frame(image))
        .collect::<Result<_>>()?;
    let format = frames.first().context("no frames")?.format;
    let raw: Vec<u8> = frames
        .iter()
        .flat_map(|frame| frame.bytes.clone())
        .collect();
    let configuration = |threshold: f32| {
        let text = format!(
            "name = \"camera in the VM\"\nstate = \"/tmp/camera\"\n\
             [model]\npackage = \"/etc/camera/m.awr\"\ntrust = [\"/etc/camera/k.key.pub\"]\nthreshold = {threshold:?}\n\
             [capture]\nkind = \"v4l2\"\ndevice = \"/dev/video10\"\nformat = \"{}\"\ntimeout_ms = 30000\n\
             [gate]\noutput = {{ chip = \"/dev/gpiochip0\", line = {GATE} }}\npulse_ms = 3000\n\
             [metrics]\nhttp = \"0.0.0.0:{HTTP}\"\n",
            format.code()
        );
        text.into_bytes()
    };
    let boot = Boot {
        files: vec![
            rig.edge_runtime()?,
            rig.feeder()?,
            host("/etc/camera/m.awr", material.package()),
            host("/etc/camera/k.key.pub", material.key()),
            // Every score is above the one and below the other, so that a model that was hardly trained serves.
            bytes("/etc/camera/all-ng.toml", &configuration(0.0)),
            bytes("/etc/camera/all-ok.toml", &configuration(1e6)),
            bytes("/etc/camera/frames.raw", &raw),
        ],
        ports: vec![HTTP],
        disk: None,
    };
    let mut guest = rig.boot(&boot)?;
    let address = guest.address(HTTP)?;
    guest.make_gpio(LINES)?;
    guest.load_loopback(format)?;
    let feed = format!(
        "vm-feed /dev/video10 {} 2 /etc/camera/frames.raw",
        format.bytes()
    );
    // A loopback nobody has written to is no camera yet.
    guest.check(&feed)?;
    for (configuration, result) in [("all-ok", "ok"), ("all-ng", "ng")] {
        start(&mut guest, configuration)?;
        guest.check(&feed)?;
        let series = format!("awr_parts_total{{result=\"{result}\"}}");
        let wanted = frames.len() as f64;
        let started = Instant::now();
        // A new reader of a loopback may first get the frame that was written last before it came.
        while !(wanted..=wanted + 1.0).contains(&metric(address, &series)?) {
            if started.elapsed() > PATIENCE {
                bail!("{configuration}: {series} is {}", metric(address, &series)?);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let gate = guest.gpio_level(GATE)?;
        if gate != (result == "ng") {
            bail!("{configuration}: the gate's line is {gate}");
        }
        // Asked to end, it would first wait for a frame, for its time-out.
        guest.check("kill -KILL $(cat /run/camera.pid)")?;
        guest.wait_until("! kill -0 $(cat /run/camera.pid)", PATIENCE)?;
        guest.check("rm -r /tmp/camera")?;
    }
    Ok(())
}

/// Starts the program and waits until it is at work; what it logs is part of the error.
fn start(guest: &mut Guest, configuration: &str) -> Result<()> {
    let command = format!("edge-runtime run --config /etc/camera/{configuration}.toml");
    guest.background("camera", &command, "/tmp/camera.log")?;
    let started = guest.wait_until("[ -s /tmp/camera/endpoints.json ]", PATIENCE);
    if let Err(error) = started {
        let log = guest.read("/tmp/camera.log")?;
        return Err(error.context(String::from_utf8_lossy(&log).into_owned()));
    }
    Ok(())
}

/// A value of the program's metrics; 0 while it is not there.
fn metric(address: SocketAddr, series: &str) -> Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: vm\r\n\r\n")?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("reading the metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    Ok(line.map_or(Ok(0.0), |value| value.trim().parse())?)
}
