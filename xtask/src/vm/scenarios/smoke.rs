//! Each device of the guest alone, without the camera's program. If one of these fails, the
//! failures of others mean nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::vm::boot::{Boot, Guest};
use crate::vm::devices::{Format, Pixels};
use crate::vm::rig::{Rig, bytes, ensure_equal, host};

const PATIENCE: Duration = Duration::from_secs(30);

/// Commands run in the guest; exit code, output and input are passed through unchanged.
pub(crate) fn boot(rig: &mut Rig) -> Result<()> {
    let guest = rig.shared()?;
    let input: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let output = guest.run_with("cat; echo spoken >&2; exit 7", &input, PATIENCE)?;
    ensure_equal("standard input passed through", &output.stdout, &input)?;
    ensure_equal("standard error", &output.stderr, b"spoken\n")?;
    if output.status != 7 {
        bail!("exit code {} instead of 7", output.status);
    }
    let output = guest.run_with("sleep 60", &[], Duration::from_secs(1))?;
    if output.status != 137 {
        bail!(
            "a command that exceeded its limit ended with {}",
            output.status
        );
    }
    Ok(())
}

/// Files and programs of a boot are in the guest, and the camera's program starts there.
pub(crate) fn program(rig: &mut Rig) -> Result<()> {
    let manifest = include_bytes!("../../../Cargo.toml");
    let boot = Boot {
        files: vec![
            rig.edge_runtime()?,
            bytes("/etc/vm/bytes", &[0, 255, 10]),
            host("/etc/vm/Cargo.toml", rig.root().join("xtask/Cargo.toml")),
        ],
        ..Boot::default()
    };
    let mut guest = rig.boot(&boot)?;
    ensure_equal("bytes", &guest.read("/etc/vm/bytes")?, &[0, 255, 10])?;
    ensure_equal(
        "a host's file",
        &guest.read("/etc/vm/Cargo.toml")?,
        manifest,
    )?;
    guest.check("edge-runtime --version")?;
    Ok(())
}

/// The loopback delivers the frames that it is fed, unchanged, each once and in order.
pub(crate) fn loopback(rig: &mut Rig) -> Result<()> {
    for (width_px, pixels) in [(320, Pixels::Grey), (64, Pixels::Rgb)] {
        let format = Format {
            width_px,
            height_px: width_px * 3 / 4,
            pixels,
        };
        feed_and_capture(rig.shared()?, format).context(format.code())?;
    }
    Ok(())
}

fn feed_and_capture(guest: &mut Guest, format: Format) -> Result<()> {
    const FRAMES: usize = 20;
    guest.load_loopback(format)?;
    let frame = format.bytes();
    let fed: Vec<u8> = (0..FRAMES * frame)
        .map(|at| (at / frame * 37 + at % 251) as u8)
        .collect();
    guest.write("/tmp/fed.raw", &fed)?;
    // The device has a format for readers only after the first write; and a new reader first gets
    // the last frame that was written before it opened the device.
    guest.check(&format!(
        "head -c {frame} /dev/zero >/tmp/first.raw && \
         vm-feed /dev/video10 {frame} 10 /tmp/first.raw"
    ))?;
    let wanted = FRAMES + 1;
    guest.background(
        "capture",
        &format!(
            "v4l2-ctl -d /dev/video10 --stream-mmap=4 --stream-count={wanted} \
             --stream-to=/tmp/got.raw"
        ),
        "/tmp/capture.log",
    )?;
    guest.wait_until("[ -s /tmp/got.raw ]", PATIENCE)?;
    guest.check(&format!("vm-feed /dev/video10 {frame} 10 /tmp/fed.raw"))?;
    guest.wait_until(
        &format!("[ $(stat -c %s /tmp/got.raw) = {} ]", wanted * frame),
        PATIENCE,
    )?;
    let got = guest.read("/tmp/got.raw")?;
    ensure_equal("frames", &got[frame..], &fed)
}

/// vivid streams, and ends the stream when it is asked for a fatal error.
pub(crate) fn vivid(rig: &mut Rig) -> Result<()> {
    let guest = rig.shared()?;
    guest.load_vivid()?;
    let capture = "v4l2-ctl -d /dev/video0 --stream-mmap=4 --stream-count";
    guest.check(
        "v4l2-ctl -d /dev/video0 --set-fmt-video=width=320,height=180,pixelformat=GREY \
         --set-parm=10",
    )?;
    guest.check(&format!("{capture}=5 --stream-to=/tmp/vivid.raw"))?;
    let length = guest.check("stat -c %s /tmp/vivid.raw")?.text();
    if length != (5 * 320 * 180).to_string() {
        bail!("five frames have {length} bytes");
    }
    guest.background(
        "capture",
        &format!("{capture}=10000 --stream-to=/dev/null"),
        "/tmp/vivid.log",
    )?;
    std::thread::sleep(Duration::from_secs(1));
    guest.vivid_fault("inject_fatal_streaming_error", 1)?;
    guest
        .wait_until("! kill -0 $(cat /run/capture.pid)", PATIENCE)
        .context("the capture went on after a fatal error")
}

/// Inputs can be pulled and cause interrupts, outputs can be read back, and lines are independent.
pub(crate) fn gpio(rig: &mut Rig) -> Result<()> {
    let guest = rig.shared()?;
    let chip = guest.make_gpio(16)?;
    guest.check(&format!("[ -c /dev/{chip} ]"))?;
    for high in [true, false, true] {
        guest.gpio_pull(3, high)?;
        let levels = (guest.gpio_level(3)?, guest.gpio_level(4)?);
        if levels != (high, false) {
            bail!("pulled line 3 to {high}; lines 3 and 4 are {levels:?}");
        }
    }
    // The kernel's older interface (sysfs) takes the place of a program that uses the lines.
    let base = guest.check(&format!(
        "cat /sys/bus/gpio/devices/{chip}/../gpio/*/base | head -n 1"
    ))?;
    let base: u32 = base.text().parse().context("the chip's base")?;
    let (output, input) = (base + 5, base + 6);
    guest.check(&format!(
        "cd /sys/class/gpio && echo {output} >export && echo out >gpio{output}/direction && \
         echo {input} >export && echo both >gpio{input}/edge"
    ))?;
    for high in [true, false] {
        guest.check(&format!(
            "echo {} >/sys/class/gpio/gpio{output}/value",
            u8::from(high)
        ))?;
        if guest.gpio_level(5)? != high {
            bail!("line 5 was driven to {high}, but its level did not follow");
        }
    }
    let edges =
        "awk '/irq_sim/ { for (i = 2; i < 4; i++) n += $i } END { print n + 0 }' /proc/interrupts";
    let before: u32 = guest.check(edges)?.text().parse()?;
    guest.gpio_pull(6, true)?;
    guest.gpio_pull(6, false)?;
    let after: u32 = guest.check(edges)?.text().parse()?;
    if after != before + 2 {
        bail!(
            "expected 2 interrupts for 2 edges, found {}",
            after - before
        );
    }
    Ok(())
}

/// The network carries bytes into the guest and back. While the cable is pulled it carries none,
/// and none are lost.
pub(crate) fn tcp(rig: &mut Rig) -> Result<()> {
    let guest = rig.shared()?;
    guest.background("echo", "nc -l -p 9000 -e cat", "/tmp/echo.log")?;
    guest.wait_until("netstat -ltn | grep -q :9000", PATIENCE)?;
    let mut stream = TcpStream::connect(guest.address(9000)?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
    let mut writer = stream.try_clone()?;
    let copy = sent.clone();
    // Sent while the echo is read: it stops reading when nobody takes what it writes.
    let sender = std::thread::spawn(move || writer.write_all(&copy));
    let mut got = vec![0; sent.len()];
    stream.read_exact(&mut got).context("reading the echo")?;
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    ensure_equal("echo", &got, &sent)?;

    guest.cable(false)?;
    stream.write_all(b"late")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut got = [0; 4];
    if stream.read(&mut got).is_ok() {
        bail!("an echo came through a pulled cable");
    }
    guest.cable(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .read_exact(&mut got)
        .context("reading after the cable was plugged")?;
    ensure_equal("echo", &got, b"late")
}

/// The serial port carries every byte value, both ways.
pub(crate) fn serial(rig: &mut Rig) -> Result<()> {
    let guest = rig.shared()?;
    let mut line = guest.serial()?;
    line.set_read_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..=255).collect();
    guest.check("stty -F /dev/cable 115200 raw -echo")?;
    guest.background(
        "serial",
        "dd if=/dev/cable of=/tmp/serial bs=1 count=256",
        "/tmp/serial.log",
    )?;
    // Bytes that arrive while no program has the port open are lost.
    guest.wait_until(
        "ls -l /proc/$(cat /run/serial.pid)/fd | grep -q $(readlink /dev/cable)",
        PATIENCE,
    )?;
    line.write_all(&sent)?;
    guest.wait_until("[ $(stat -c %s /tmp/serial) = 256 ]", PATIENCE)?;
    ensure_equal("host to guest", &guest.read("/tmp/serial")?, &sent)?;
    guest.check("cat /tmp/serial >/dev/cable")?;
    let mut got = vec![0; sent.len()];
    line.read_exact(&mut got)
        .context("reading the serial line")?;
    ensure_equal("guest to host", &got, &sent)
}

/// After a power cut, synced data is on the disk, other data of the kernel's memory is lost, and so
/// is, sometimes, what the disk has in its cache. The file system mounts again.
pub(crate) fn power_cut(rig: &mut Rig) -> Result<()> {
    /// A disk keeps all of its cache in one cut of five, so not in so many.
    const CUTS: usize = 8;
    let boot = Boot {
        disk: Some(rig.disk()?),
        ..Boot::default()
    };
    let mut guest = rig.boot(&boot)?;
    for _ in 0..CUTS {
        // The last file has its place on the disk before it is written past the kernel's memory.
        guest.check(
            "grep -q ' /state ext4 ' /proc/mounts && rm -f /state/lost && \
             echo kept >/state/file && head -c 4096 /dev/zero >/state/cached && sync && \
             echo lost >/state/lost && head -c 4096 /dev/zero | tr '\\0' x >/tmp/x && \
             dd if=/tmp/x of=/state/cached bs=4096 conv=notrunc oflag=direct",
        )?;
        let cut = Instant::now();
        guest.kill()?;
        if cut.elapsed() > Duration::from_secs(5) {
            bail!("the power cut took {:.1} s", cut.elapsed().as_secs_f64());
        }
        guest = rig.boot(&boot)?;
        guest.check("grep -q ' /state ext4 ' /proc/mounts")?;
        ensure_equal("the file", &guest.read("/state/file")?, b"kept\n")?;
        if guest.run("grep -q lost /state/lost")?.status == 0 {
            bail!("data that was only in the guest's memory survived: the power was not cut");
        }
        if guest.read("/state/cached")?.contains(&0) {
            return Ok(());
        }
    }
    bail!("what the disk had in its cache survived {CUTS} power cuts")
}
