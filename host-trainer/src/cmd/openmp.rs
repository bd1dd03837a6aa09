//! How libtorch's threads wait.

/// What OpenMP reads, once, before `main` begins.
const POLICY: &str = "OMP_WAIT_POLICY";

/// Begins this program anew with OpenMP threads that sleep while they wait, unless the user has said how they do. By themselves they
/// spin, and take the cores from the threads that make what is to be learned next: 121 s for a package with 200 steps of an area network,
/// 102 s so (two cores). Where that is not possible nothing changes.
#[cfg(unix)]
pub(crate) fn sleep_while_waiting() {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    if std::env::var_os(POLICY).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else {
        return;
    };
    let mut anew = Command::new(program);
    anew.arg0(name).args(arguments).env(POLICY, "passive");
    // Comes back only where it failed.
    let _: std::io::Error = anew.exec();
}

#[cfg(not(unix))]
pub(crate) fn sleep_while_waiting() {}
