//! `station`: see `station --help`.
//!
//! `key_store` has the station's key and the paired cameras, `client` is a session with a camera,
//! and `flash` transfers packages. `scene` is the state of the watched cameras, `screen` draws it
//! and `text` puts records into words. `cmd` has the commands, which print
//! through `output`.

#![forbid(unsafe_code)]
// A camera's text must not reach a terminal unchecked: see `output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod output;

mod client;
mod cmd;
mod exchange;
mod flash;
mod key_store;
mod scene;
mod screen;
mod sequence;
mod serial_line;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The station at the line: pairs with cameras, shows their state, flashes model packages and rolls
/// them back, changes settings, fetches frames.
///
/// CAMERA is the name under which a camera was paired, or `serial:/dev/ttyUSB0` for a camera at the
/// other end of a serial cable (`serial:/dev/ttyUSB0@9600` for another rate than 115200 baud).
/// Results go to standard output, everything else to standard error. The exit code is 0 on success
/// and 2 on failure.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Print JSON instead of text, for other programs.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Discover(cmd::pair::Discover),
    Pair(cmd::pair::Pair),
    Invite(cmd::pair::Invite),
    List(cmd::pair::List),
    Forget(cmd::pair::Forget),
    Stations(cmd::pair::Stations),
    Revoke(cmd::pair::Revoke),
    Status(cmd::status::Status),
    Watch(cmd::watch::Watch),
    Slots(cmd::package::Slots),
    Flash(cmd::package::Flash),
    Confirm(cmd::package::Confirm),
    Rollback(cmd::package::Rollback),
    Threshold(cmd::settings::Threshold),
    Mask(cmd::settings::Mask),
    Mode(cmd::settings::ModeCommand),
    Golden(cmd::settings::Golden),
    Pull(cmd::pull::Pull),
    ReplayCompare(cmd::compare::ReplayCompare),
    Check(cmd::check::Check),
}

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let done = match command {
        Command::Discover(command) => command.run(json),
        Command::Pair(command) => command.run(json),
        Command::Invite(command) => command.run(json),
        Command::List(command) => command.run(json),
        Command::Forget(command) => command.run(),
        Command::Stations(command) => command.run(json),
        Command::Revoke(command) => command.run(),
        Command::Status(command) => command.run(json),
        Command::Watch(command) => command.run(json),
        Command::Slots(command) => command.run(json),
        Command::Flash(command) => command.run(json),
        Command::Confirm(command) => command.run(),
        Command::Rollback(command) => command.run(json),
        Command::Threshold(command) => command.run(json),
        Command::Mask(command) => command.run(json),
        Command::Mode(command) => command.run(json),
        Command::Golden(command) => command.run(json),
        Command::Pull(command) => command.run(json),
        Command::ReplayCompare(command) => command.run(json),
        Command::Check(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn reference_is_current() {
        reference::check_command(Cli::command());
    }
}
