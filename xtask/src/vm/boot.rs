//! Starts QEMU with a guest, runs commands in it and kills it.
//!
//! Every wait has a limit, and no QEMU outlives its `Guest`.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::control::{Control, Output};
use super::disk::{Cut, Disk};
use super::image::{self, GuestFile};
use super::kit::Kit;
use super::tool::{last_lines, need, run_logged};

/// Longest time from QEMU's start to the guest's first answer.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Longest time for a command, unless the caller sets another limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What a guest is booted with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Boot {
    /// Files to add to the guest's root file system, which is in memory and new at every boot.
    pub(crate) files: Vec<GuestFile>,
    /// A disk of `make_disk` to mount at /state.
    pub(crate) disk: Option<PathBuf>,
    /// Ports of the guest to forward, see `Guest::address`.
    pub(crate) ports: Vec<u16>,
}

/// A guest that has booted. Dropping it is a power cut.
pub(crate) struct Guest {
    qemu: Qemu,
    /// After `qemu`, whose end it waits for when it is dropped.
    disk: Option<Disk>,
    control: Control,
    /// Port in the guest, and the port on the host that is forwarded to it.
    ports: Vec<(u16, u16)>,
    /// Time from QEMU's start to the first answer.
    pub(crate) boot_time: Duration,
}

impl Guest {
    /// Boots a guest; its sockets, logs and image are in `folder`.
    pub(crate) fn start(kit: &Kit, folder: &Path, boot: &Boot) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        image::write(kit, &boot.files, &folder.join("root.cpio"))?;
        let mut ports = Vec::new();
        for port in &boot.ports {
            ports.push((*port, free_port()?));
        }
        let disk = boot.disk.as_deref();
        let disk = disk.map(|medium| Disk::serve(medium, &folder.join("disk.sock")));
        let disk = disk.transpose()?;
        let started = Instant::now();
        let mut qemu = Qemu::spawn(kit, folder, boot, &ports)?;
        let stream = qemu.connect("control.sock")?;
        let mut control = Control::new(stream)?;
        // The command waits in the socket until the guest reads it.
        let hello = control.run("true", &[], BOOT_LIMIT, &mut || qemu.alive());
        hello.with_context(|| {
            format!(
                "booting a guest; see {}",
                folder.join("console.log").display()
            )
        })?;
        Ok(Self {
            qemu,
            disk,
            control,
            ports,
            boot_time: started.elapsed(),
        })
    }

    /// Runs a shell command; any exit code is fine.
    pub(crate) fn run(&mut self, command: &str) -> Result<Output> {
        self.run_with(command, &[], COMMAND_LIMIT)
    }

    /// Runs a shell command with standard input, and kills it after `limit`.
    pub(crate) fn run_with(
        &mut self,
        command: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Output> {
        let qemu = &mut self.qemu;
        self.control
            .run(command, input, limit, &mut || qemu.alive())
            .with_context(|| format!("running `{command}` in the guest"))
    }

    /// Runs a shell command that must succeed.
    pub(crate) fn check(&mut self, command: &str) -> Result<Output> {
        let output = self.run(command)?;
        if output.status != 0 {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`{command}` in the guest ended with {}: {}",
                output.status,
                why.trim()
            );
        }
        Ok(output)
    }

    /// Starts a program in the background of the guest. Its output goes to the file `log`, its
    /// process id to /run/NAME.pid.
    pub(crate) fn background(&mut self, name: &str, command: &str, log: &str) -> Result<()> {
        self.check(&format!(
            "rm -f /run/{name}.pid
             setsid sh -c 'echo $$ >/run/{name}.pid; exec {command}' >{log} 2>&1 </dev/null &
             until [ -s /run/{name}.pid ]; do sleep 0.05; done"
        ))?;
        Ok(())
    }

    /// Reads a file in the guest.
    pub(crate) fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        Ok(self.check(&format!("cat '{path}'"))?.stdout)
    }

    /// Writes a file in the guest.
    pub(crate) fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let output = self.run_with(&format!("cat >'{path}'"), bytes, COMMAND_LIMIT)?;
        if output.status != 0 {
            bail!("cannot write {path} in the guest");
        }
        Ok(())
    }

    /// Runs `command` until it succeeds, for at most `limit`.
    pub(crate) fn wait_until(&mut self, command: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.run(command)?.status != 0 {
            if Instant::now() > deadline {
                bail!("`{command}` did not succeed within {} s", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The address on the host that is forwarded to a port of the guest. QEMU accepts a connection
    /// at once, and closes it if no program listens in the guest.
    pub(crate) fn address(&self, port: u16) -> Result<SocketAddr> {
        let found = self.ports.iter().find(|(guest, _)| *guest == port);
        let (_, here) = found.with_context(|| format!("the boot did not ask for port {port}"))?;
        Ok(([127, 0, 0, 1], *here).into())
    }

    /// Connects to the other end of /dev/cable. There can be one connection at a time; what the
    /// guest writes while there is none is lost.
    pub(crate) fn serial(&mut self) -> Result<UnixStream> {
        self.qemu.connect("serial.sock")
    }

    /// Pulls or plugs the network cable.
    pub(crate) fn cable(&mut self, plugged: bool) -> Result<()> {
        let state = if plugged { "on" } else { "off" };
        self.qemu.monitor(&format!("set_link net {state}"))
    }

    /// Cuts the power: QEMU gets SIGKILL. The disk keeps what was flushed, and any part of what the
    /// guest's kernel has written to it since.
    pub(crate) fn kill(self) -> Result<Cut> {
        let Self { qemu, disk, .. } = self;
        if let Some(disk) = &disk {
            disk.stop();
        }
        drop(qemu);
        disk.map_or(Ok(Cut::default()), Disk::cut)
    }
}

/// QEMU's process, killed when dropped.
struct Qemu {
    child: Child,
    folder: PathBuf,
}

impl Qemu {
    fn spawn(kit: &Kit, folder: &Path, boot: &Boot, ports: &[(u16, u16)]) -> Result<Self> {
        let mut command = kit.qemu();
        let mut net = "user,id=net,restrict=on".to_owned();
        for (guest, here) in ports {
            net.push_str(&format!(",hostfwd=tcp:127.0.0.1:{here}-10.0.2.15:{guest}"));
        }
        command
            // Socket names are relative to it: absolute ones may be longer than the system allows.
            .current_dir(folder)
            .args(kit.machine().board())
            .args(["-accel", "tcg,thread=multi"])
            .args(["-m", "1G", "-smp", "2", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(kit.kernel())
            .args(["-initrd", "root.cpio", "-append"])
            // Nobody attacks the guest, so it needs no mitigations. A panic ends QEMU.
            .arg(format!(
                "{} loglevel=5 panic=-1 mitigations=off nokaslr",
                kit.machine().serial_ports()
            ))
            .args(["-monitor", "unix:monitor.sock,server=on,wait=off"])
            .args(["-device", "virtio-serial-pci"])
            .args([
                "-chardev",
                "socket,id=control,path=control.sock,server=on,wait=off",
            ])
            .args(["-device", "virtserialport,chardev=control,name=control"])
            .args(["-netdev", &net])
            .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        if boot.disk.is_some() {
            // The guest sees a disk with a cache, which it must flush.
            let drive = "file=nbd:unix:disk.sock,if=none,id=disk,format=raw,cache=writeback";
            command.args(["-drive", drive]);
            command.args(["-device", "virtio-blk-pci,drive=disk"]);
        }
        let log = folder.join("qemu.log");
        let log = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting QEMU")?;
        Ok(Self {
            child,
            folder: folder.to_owned(),
        })
    }

    fn alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait().context("checking on QEMU")? else {
            return Ok(());
        };
        bail!(
            "QEMU has ended ({status}): {} | console: {}",
            last_lines(&self.folder.join("qemu.log"), 3),
            last_lines(&self.folder.join("console.log"), 3)
        );
    }

    /// Connects to one of its sockets, which it creates when it starts.
    fn connect(&mut self, name: &str) -> Result<UnixStream> {
        let path = self.folder.join(name);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("connecting to {}", path.display()));
                }
                Err(_) => self.alive()?,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command of QEMU's monitor that prints nothing.
    fn monitor(&mut self, command: &str) -> Result<()> {
        use std::io::{Read, Write};
        let mut stream = self.connect("monitor.sock")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        // The monitor prompts at the start, and again when the command is done.
        let mut printed = Vec::new();
        let mut buffer = [0; 1024];
        while printed.windows(6).filter(|part| part == b"(qemu)").count() < 2 {
            let count = stream
                .read(&mut buffer)
                .context("waiting for QEMU's monitor")?;
            if count == 0 {
                bail!("QEMU's monitor closed");
            }
            printed.extend_from_slice(&buffer[..count]);
        }
        let printed = String::from_utf8_lossy(&printed);
        match printed.lines().find(|line| line.starts_with("Error")) {
            Some(error) => bail!("QEMU's monitor: {error}"),
            None => Ok(()),
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Makes an empty ext4 file system in a sparse file.
pub(crate) fn make_disk(path: &Path, mebibytes: u64) -> Result<()> {
    let mkfs = need("mkfs.ext4", "install it: package e2fsprogs")?;
    let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
    file.set_len(mebibytes << 20)?;
    let mut command = Command::new(mkfs);
    // Everything is initialised now instead of by the guest in the background. Blocks are of the
    // size that larger disks have.
    command
        .args([
            "-q",
            "-F",
            "-b",
            "4096",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ])
        .arg(path);
    run_logged(&mut command, &path.with_extension("log"), COMMAND_LIMIT)
}

/// A port that no program uses at the moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}
