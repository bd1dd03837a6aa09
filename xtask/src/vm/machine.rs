//! The two kinds of guests and the differences between them: a PC like the host, and a 64-bit ARM
//! machine like a camera.

/// The kind of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// x86-64.
    Pc,
    /// aarch64, with the processor of a Jetson Nano.
    Arm,
}

impl Machine {
    /// Debian's name for the architecture.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Pc => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// The name by which apt on an x86-64 host knows a package for the guest.
    pub(crate) fn package(self, name: &str) -> String {
        match self {
            Self::Pc => name.to_owned(),
            Self::Arm => format!("{name}:arm64"),
        }
    }

    /// The program of QEMU, and Debian's package of it.
    pub(crate) fn qemu(self) -> (&'static str, &'static str) {
        match self {
            Self::Pc => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// Folders of the libraries in Debian's packages for the guest.
    pub(crate) fn libraries(self) -> [&'static str; 2] {
        match self {
            Self::Pc => ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"],
            Self::Arm => ["usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"],
        }
    }

    /// The compiler or a program of binutils for the guest, and Debian's package of it.
    pub(crate) fn tool(self, name: &str) -> (String, String) {
        let package = match name {
            "gcc" => name,
            _ => "binutils",
        };
        match self {
            Self::Pc => (name.to_owned(), package.to_owned()),
            Self::Arm => (
                format!("aarch64-linux-gnu-{name}"),
                format!("{package}-aarch64-linux-gnu"),
            ),
        }
    }

    /// Arguments for the kernel's make.
    pub(crate) fn kernel_make(self) -> &'static [&'static str] {
        match self {
            // By default, the headers want the compiler version that built the kernel.
            Self::Pc => &["CC=gcc"],
            Self::Arm => &[
                "CC=aarch64-linux-gnu-gcc",
                "ARCH=arm64",
                "CROSS_COMPILE=aarch64-linux-gnu-",
            ],
        }
    }

    /// QEMU's arguments for board, processor and serial ports: the console goes to console.log, the
    /// cable to serial.sock.
    pub(crate) fn board(self) -> &'static [&'static str] {
        match self {
            Self::Pc => &[
                "-M",
                "pc",
                "-cpu",
                "max",
                "-serial",
                "file:console.log",
                "-serial",
                "unix:serial.sock,server=on,wait=off",
            ],
            // The board has one serial port, so the cable's port is on a PCI card.
            Self::Arm => &[
                "-M",
                "virt",
                "-cpu",
                "cortex-a57",
                "-serial",
                "file:console.log",
                "-chardev",
                "socket,id=cable,path=serial.sock,server=on,wait=off",
                "-device",
                "pci-serial,chardev=cable",
            ],
        }
    }

    /// Kernel arguments that name the serial ports. `init` makes /dev/cable from `cable`.
    pub(crate) fn serial_ports(self) -> &'static str {
        match self {
            Self::Pc => "console=ttyS0 cable=ttyS1",
            Self::Arm => "console=ttyAMA0 cable=ttyS0",
        }
    }

    /// Prefix of the names of cache folders for guests of this kind.
    pub(crate) fn cache_prefix(self) -> &'static str {
        match self {
            Self::Pc => "",
            Self::Arm => "arm64-",
        }
    }
}
