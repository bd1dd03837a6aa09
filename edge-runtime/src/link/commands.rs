//! What stations ask for: checks the role, has it done, answers.

use proto::limits::MAX_PAYLOAD_BYTES;
use proto::message::{Answer, Command, FromCamera, Message, Role, StationInfo, cut_text};
use proto::recovery::{Request, Response};

use super::LinkContext;
use super::deliver::{Long, Outbox, Pictures};
use super::door::CODE_VALID;
use super::files::{Sending, list};
use super::permission;
use crate::reporting::one_line;
use crate::update::UpdateError;

/// Who asks.
pub(super) struct Asked<'a> {
    pub(super) context: &'a LinkContext,
    /// Whether the recovery exchange is answered on this link.
    pub(super) recovery: bool,
    pub(super) role: Role,
    pub(super) station: &'a str,
}

impl Asked<'_> {
    /// Why it may not be done, if it may not.
    fn forbidden(&self, needed: Role, what: &str) -> Option<String> {
        if self.role >= needed {
            return None;
        }
        let reason = format!(
            "{what} needs the role {needed}, and this station has the role {}",
            self.role
        );
        self.context.door.refused(self.station, &reason);
        Some(reason)
    }
}

/// Carries a command out, or says why not.
pub(super) fn answer(asked: &Asked<'_>, id: u32, command: Command, outbox: &Outbox) {
    let needed = permission::for_command(&command);
    if let Some(reason) = asked.forbidden(needed, "this command") {
        outbox.put(reply(id, refused(&reason)));
        return;
    }
    let long = matches!(command, Command::Snapshot | Command::FetchFile { .. });
    // Before the pictures are made, which takes time and memory.
    if long && outbox.is_sending() {
        let reason = "the snapshot or file before is still on its way";
        outbox.put(reply(id, refused(reason)));
        return;
    }
    match command {
        Command::FetchFile {
            kind,
            name,
            offset_bytes,
        } => match Sending::open(&asked.context.state, kind, &name, offset_bytes) {
            Ok(sending) => {
                let answer = Answer::File {
                    bytes: sending.bytes,
                };
                outbox.put_long(reply(id, answer), Long::File(id, sending));
            }
            Err(error) => outbox.put(reply(id, refused(&error.to_string()))),
        },
        Command::ReadSlots
        | Command::ReadStations
        | Command::RevokeStation { .. }
        | Command::OpenPairing { .. }
        | Command::ListFiles { .. } => outbox.put(reply(id, of_link(asked, command))),
        command => {
            let (answer, pictures) = asked.context.control.execute(asked.station, command);
            let reply = reply(id, answer);
            if pictures.is_empty() {
                outbox.put(reply);
            } else {
                let pictures = Pictures::new(id, pictures);
                outbox.put_long(reply, Long::Pictures(pictures));
            }
        }
    }
}

/// Commands that concern the link and the packages, not inspection.
fn of_link(asked: &Asked<'_>, command: Command) -> Answer {
    let context = asked.context;
    match command {
        Command::ReadSlots => Answer::Slots(context.updater.slot_infos()),
        Command::ReadStations => match context.door.access().read() {
            Ok(entries) => Answer::Stations(
                entries
                    .into_iter()
                    .map(|entry| StationInfo {
                        key_id: secure::short_id(&entry.key),
                        name: entry.name,
                        role: entry.role,
                    })
                    .collect(),
            ),
            Err(error) => refused(&one_line(&error)),
        },
        Command::RevokeStation { station, reason } => {
            match context.door.revoke(&station, &reason, asked.station) {
                Ok(0) => refused(&format!("no station {station:?} has access")),
                Ok(_) => Answer::Done,
                Err(error) => refused(&one_line(&error)),
            }
        }
        Command::OpenPairing { role } => match context.door.open_pairing(role) {
            Ok(code) => Answer::Pairing {
                code: code.to_string(),
                valid_s: CODE_VALID.as_secs() as u32,
            },
            Err(error) => refused(&format!("cannot write the pairing code: {error}")),
        },
        Command::ListFiles { kind, after } => match list(&context.state, kind, &after) {
            Ok(files) => Answer::Files(files),
            Err(error) => refused(&error.to_string()),
        },
        _ => refused("this cannot be asked for here"),
    }
}

fn refused(reason: &str) -> Answer {
    let reason = cut_text(reason);
    Answer::Refused { reason }
}

/// A reply as a payload. What no station could read (a mask from the configuration has no limit) is refused.
fn reply(id: u32, answer: Answer) -> Vec<u8> {
    let reply = FromCamera::Reply { id, answer };
    let payload = reply.encode();
    let why = match reply.check() {
        Err(error) => error.to_string(),
        Ok(()) if payload.len() > MAX_PAYLOAD_BYTES => format!("{} bytes", payload.len()),
        Ok(()) => return payload,
    };
    let answer = refused(&format!("the answer is too long for a message: {why}"));
    FromCamera::Reply { id, answer }.encode()
}

/// The recovery exchange.
pub(super) fn recover(asked: &Asked<'_>, request: &Request) -> Response {
    let context = asked.context;
    if !asked.recovery {
        let reason =
            "the recovery exchange is not answered on this line: link.serial.recovery".to_owned();
        return Response::Refused { reason };
    }
    let needed = permission::for_recovery(request);
    if let Some(reason) = asked.forbidden(needed, "changing the package") {
        return Response::Refused { reason };
    }
    let (updater, station) = (&context.updater, asked.station);
    let (control, reporter) = (&context.control, &context.reporter);
    let onwards = |offset_bytes| Response::Continue { offset_bytes };
    let done = |()| Response::Done;
    let response = match request {
        Request::Identify => {
            return Response::Identity {
                boot: context.boot,
                camera: context.camera.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
            };
        }
        Request::Slots => return Response::Slots(updater.slots()),
        Request::FlashBegin {
            total_bytes,
            sha256,
        } => updater
            .flash_begin(station, *total_bytes, *sha256)
            .map(onwards),
        Request::FlashChunk {
            offset_bytes,
            bytes,
        } => updater
            .flash_chunk(station, *offset_bytes, bytes)
            .map(onwards),
        Request::FlashEnd => updater.flash_end(station, control, reporter).map(done),
        Request::Confirm => updater.confirm(station, control, reporter).map(done),
        Request::RollBack => updater
            .roll_back(station, "asked for", control, reporter)
            .map(done),
    };
    response.unwrap_or_else(|error| refusal(&error))
}

/// A compressed piece of a package.
pub(super) fn flash_deflated(
    asked: &Asked<'_>,
    offset_bytes: u64,
    plain_bytes: u32,
    deflated: &[u8],
) -> Response {
    if let Some(reason) = asked.forbidden(Role::Engineer, "changing the package") {
        return Response::Refused { reason };
    }
    let taken =
        asked
            .context
            .updater
            .flash_deflated(asked.station, offset_bytes, plain_bytes, deflated);
    match taken {
        Ok(offset_bytes) => Response::Continue { offset_bytes },
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &UpdateError) -> Response {
    Response::Refused {
        reason: cut_text(&one_line(error)),
    }
}
