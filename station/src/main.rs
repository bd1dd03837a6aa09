//! `station`: see `station --help`.
//!
//! `home` knows the station's key and cameras, `client` is a session, `flash` brings packages, `scene` is what is known of
//! watched cameras and `screen` draws it; `cmd` is what people type.

#![forbid(unsafe_code)]

mod client;
mod cmd;
mod flash;
mod home;
mod scene;
mod screen;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The line-side program: pair with cameras, see how they are, flash model packages, roll back, fetch frames.
///
/// CAMERA is the name that a camera was paired under, or `serial:/dev/ttyUSB0` (`@BAUD` unless it is 115200) for one at
/// the other end of a cable. Results go to standard output, everything else to standard error. Exit codes: 0 done, 2 not.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Print JSON, for machines.
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
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
