//! How the threads of libtorch's OpenMP wait.

/// The variable that OpenMP reads once, before `main` begins.
const POLICY: &str = "OMP_WAIT_POLICY";

/// Restarts this program with OpenMP threads that sleep while they wait, unless the user has set
/// the policy. By default they spin, and take the cores from the threads that draw the next batch.
/// If the restart is not possible, nothing changes.
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
    let mut again = Command::new(program);
    again.arg0(name).args(arguments).env(POLICY, "passive");
    // Returns only if it failed.
    let _: std::io::Error = again.exec();
}

#[cfg(not(unix))]
pub(crate) fn sleep_while_waiting() {}
