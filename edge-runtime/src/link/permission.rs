//! The role that each request needs.

use proto::message::{Command, Role};
use proto::recovery::Request;

/// What a command needs.
pub(super) struct Needs {
    /// The lowest role that may give it.
    pub(super) role: Role,
    /// Whether it changes what the camera does. It is answered once its record is on the disk.
    pub(super) changes: bool,
}

/// What a command needs.
pub(super) fn for_command(command: &Command) -> Needs {
    let (role, changes) = match command {
        Command::ReadThreshold
        | Command::ReadMask
        | Command::ReadMode
        | Command::ReadHealth
        | Command::ReadSlots
        | Command::ReadStations
        | Command::ReadSettings
        | Command::ReadReadiness
        | Command::Snapshot
        | Command::ListFiles { .. }
        | Command::FetchFile { .. } => (Role::Watch, false),
        Command::GoldenCheck => (Role::Operate, false),
        Command::SetMode { .. } => (Role::Operate, true),
        Command::SetThreshold { .. }
        | Command::SetMask { .. }
        | Command::RevokeStation { .. }
        | Command::OpenPairing { .. } => (Role::Engineer, true),
    };
    Needs { role, changes }
}

/// Whether a repetition of a command must not be carried out.
pub(super) fn only_once(command: &Command) -> bool {
    for_command(command).changes || matches!(command, Command::GoldenCheck)
}

/// The lowest role that may make a recovery request.
pub(super) fn for_recovery(request: &Request) -> Role {
    match request {
        Request::Identify | Request::Slots => Role::Watch,
        Request::FlashBegin { .. }
        | Request::FlashChunk { .. }
        | Request::FlashEnd
        | Request::Confirm
        | Request::RollBack => Role::Engineer,
    }
}
