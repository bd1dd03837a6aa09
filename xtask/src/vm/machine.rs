//! The two kinds of guests, and all that differs between them: a PC of the host's own kind, and a 64-bit ARM machine as cameras are.

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// x86-64.
    Pc,
    /// aarch64, of a Jetson Nano's class.
    Arm,
}

impl Machine {
    /// Debian's name of the architecture.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Pc => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// A package for the guest, as apt takes it on an x86-64 host.
    pub(crate) fn package(self, name: &str) -> String {
        match self {
            Self::Pc => name.to_owned(),
            Self::Arm => format!("{name}:arm64"),
        }
    }

    /// QEMU's program, and Debian's package of it.
    pub(crate) fn qemu(self) -> (&'static str, &'static str) {
        match self {
            Self::Pc => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Arm => ("qemu-system-aarch64", "qemu-system-arm"),
        }
    }

    /// Where Debian's packages for the guest have their libraries.
    pub(crate) fn libraries(self) -> [&'static str; 2] {
        match self {
            Self::Pc => ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"],
            Self::Arm => ["usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"],
        }
    }

    /// A compiler's or binutils' program for the guest, and Debian's package of it.
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

    /// What the kernel's make is told.
    pub(crate) fn kernel_make(self) -> &'static [&'static str] {
        match self {
            // The headers ask for a compiler by the version that built the kernel.
            Self::Pc => &["CC=gcc"],
            Self::Arm => &[
                "CC=aarch64-linux-gnu-gcc",
                "ARCH=arm64",
                "CROSS_COMPILE=aarch64-linux-gnu-",
            ],
        }
    }

    /// QEMU's board, processor and serial lines: a console into console.log, and the cable at serial.sock.
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
            // This board has one serial line of its own; the cable's is a card's.
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

    /// What the kernel is told of them. `cable` is for `init`, which makes /dev/cable.
    pub(crate) fn lines(self) -> &'static str {
        match self {
            Self::Pc => "console=ttyS0 cable=ttyS1",
            Self::Arm => "console=ttyAMA0 cable=ttyS0",
        }
    }

    /// Begins the names of what the cache has for such guests.
    pub(crate) fn cached(self) -> &'static str {
        match self {
            Self::Pc => "",
            Self::Arm => "arm64-",
        }
    }
}
