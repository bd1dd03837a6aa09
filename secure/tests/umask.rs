//! The permissions of what a program creates after [`secure::file::keep_private`]. In a process of
//! its own, because they belong to the whole process.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

#[test]
fn what_a_program_creates_is_private_whatever_it_was_started_with() -> io::Result<()> {
    // As careless as possible.
    rustix::process::umask(rustix::fs::Mode::empty());
    secure::file::keep_private();
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    secure::file::write(&at("state/slots.json"), b"{}", 0o666)?;
    fs::write(at("state/positions"), b"")?;
    fs::create_dir_all(at("state/journal"))?;
    for (name, expected) in [
        ("state", 0o700),
        ("state/journal", 0o700),
        ("state/slots.json", 0o600),
        ("state/positions", 0o600),
    ] {
        let mode = fs::metadata(at(name))?.permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{name}");
    }
    Ok(())
}
