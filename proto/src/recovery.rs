//! The recovery exchange: enough to find out what a camera is, to give it a package and to roll back. **Frozen**: its
//! bytes never change, so that a station of any version can save a camera of any version.
//!
//! Fixed layout, integers little-endian, inside the same frames as every message:
//!
//! ```text
//! 0xA5  0x01  operation  body
//! ```
//! 0xA5 begins no ordinary message: as the first byte of a postcard enum it would announce a variant above 127.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{MAX_CHUNK_BYTES, MAX_TEXT_BYTES};

/// First byte of every recovery payload.
pub const MARK: u8 = 0xa5;
/// Second byte.
pub const FORMAT: u8 = 1;

/// What a station asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// 0: who are you?
    Identify,
    /// 1: what is in the slots?
    Slots,
    /// 2: `total_bytes` u64, `sha256` 32 bytes: begin, or go on with, a flash into the inactive slot.
    FlashBegin {
        /// Length of the package.
        total_bytes: u64,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
    /// 3: `offset_bytes` u64, bytes to the end of the payload.
    FlashChunk {
        /// Where the bytes belong.
        offset_bytes: u64,
        /// The bytes, at most [`MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// 4: verify what was flashed and put it on trial.
    FlashEnd,
    /// 5: keep the package on trial.
    Confirm,
    /// 6: make the other slot active.
    RollBack,
}

/// What a camera answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// 0: `boot` u32, then name and program version, each as u16 length and UTF-8.
    Identity {
        /// How often the program was started.
        boot: u32,
        /// Name of the camera.
        camera: String,
        /// Version of its program.
        program: String,
    },
    /// 1: per slot, one after the other: state u8, `sha256` 32 bytes.
    Slots([Slot; 2]),
    /// 2: `offset_bytes` u64: send from here.
    Continue {
        /// Offset.
        offset_bytes: u64,
    },
    /// 3: done.
    Done,
    /// 4: u16 length and UTF-8.
    Refused {
        /// Why, in words.
        reason: String,
    },
}

/// One of the two places that a package can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its state.
    pub state: SlotState,
    /// SHA-256 of the package; zero where there is none.
    pub sha256: [u8; 32],
}

/// State of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// 0: nothing whole in it.
    Empty,
    /// 1: a verified package.
    Ready,
    /// 2: the active package.
    Active,
    /// 3: active until the program ends, unless confirmed.
    Trial,
}

/// A payload is no recovery message: wrong mark, unknown operation, wrong length or text that is no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRecovery;

impl core::fmt::Display for NotRecovery {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no recovery message of the frozen layout")
    }
}

impl core::error::Error for NotRecovery {}

impl Request {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([MARK, FORMAT]);
        match self {
            Self::Identify => out.push(0),
            Self::Slots => out.push(1),
            Self::FlashBegin {
                total_bytes,
                sha256,
            } => {
                out.push(2);
                out.extend_from_slice(&total_bytes.to_le_bytes());
                out.extend_from_slice(sha256);
            }
            Self::FlashChunk {
                offset_bytes,
                bytes,
            } => {
                out.push(3);
                out.extend_from_slice(&offset_bytes.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::FlashEnd => out.push(4),
            Self::Confirm => out.push(5),
            Self::RollBack => out.push(6),
        }
        out
    }

    /// From a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, NotRecovery> {
        let (operation, mut body) = open(payload)?;
        let request = match operation {
            0 => Self::Identify,
            1 => Self::Slots,
            2 => Self::FlashBegin {
                total_bytes: u64::from_le_bytes(take(&mut body)?),
                sha256: take(&mut body)?,
            },
            3 => {
                let offset_bytes = u64::from_le_bytes(take(&mut body)?);
                let bytes = core::mem::take(&mut body);
                if bytes.len() > MAX_CHUNK_BYTES {
                    return Err(NotRecovery);
                }
                Self::FlashChunk {
                    offset_bytes,
                    bytes: bytes.into(),
                }
            }
            4 => Self::FlashEnd,
            5 => Self::Confirm,
            6 => Self::RollBack,
            _ => return Err(NotRecovery),
        };
        end(body, request)
    }
}

impl Response {
    /// As a payload; texts longer than [`MAX_TEXT_BYTES`] are cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([MARK, FORMAT]);
        match self {
            Self::Identity {
                boot,
                camera,
                program,
            } => {
                out.push(0);
                out.extend_from_slice(&boot.to_le_bytes());
                put_text(&mut out, camera);
                put_text(&mut out, program);
            }
            Self::Slots(slots) => {
                out.push(1);
                for slot in slots {
                    out.push(match slot.state {
                        SlotState::Empty => 0,
                        SlotState::Ready => 1,
                        SlotState::Active => 2,
                        SlotState::Trial => 3,
                    });
                    out.extend_from_slice(&slot.sha256);
                }
            }
            Self::Continue { offset_bytes } => {
                out.push(2);
                out.extend_from_slice(&offset_bytes.to_le_bytes());
            }
            Self::Done => out.push(3),
            Self::Refused { reason } => {
                out.push(4);
                put_text(&mut out, reason);
            }
        }
        out
    }

    /// From a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, NotRecovery> {
        let (operation, mut body) = open(payload)?;
        let response = match operation {
            0 => Self::Identity {
                boot: u32::from_le_bytes(take(&mut body)?),
                camera: take_text(&mut body)?,
                program: take_text(&mut body)?,
            },
            1 => Self::Slots([take_slot(&mut body)?, take_slot(&mut body)?]),
            2 => Self::Continue {
                offset_bytes: u64::from_le_bytes(take(&mut body)?),
            },
            3 => Self::Done,
            4 => Self::Refused {
                reason: take_text(&mut body)?,
            },
            _ => return Err(NotRecovery),
        };
        end(body, response)
    }
}

fn open(payload: &[u8]) -> Result<(u8, &[u8]), NotRecovery> {
    match payload {
        [MARK, FORMAT, operation, body @ ..] => Ok((*operation, body)),
        _ => Err(NotRecovery),
    }
}

fn end<T>(left: &[u8], value: T) -> Result<T, NotRecovery> {
    left.is_empty().then_some(value).ok_or(NotRecovery)
}

fn take<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], NotRecovery> {
    let (value, rest) = body.split_first_chunk::<N>().ok_or(NotRecovery)?;
    *body = rest;
    Ok(*value)
}

fn take_slot(body: &mut &[u8]) -> Result<Slot, NotRecovery> {
    let [state] = take(body)?;
    Ok(Slot {
        state: match state {
            0 => SlotState::Empty,
            1 => SlotState::Ready,
            2 => SlotState::Active,
            3 => SlotState::Trial,
            _ => return Err(NotRecovery),
        },
        sha256: take(body)?,
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = crate::message::cut_text(text);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(body: &mut &[u8]) -> Result<String, NotRecovery> {
    let length = usize::from(u16::from_le_bytes(take(body)?));
    if length > MAX_TEXT_BYTES || length > body.len() {
        return Err(NotRecovery);
    }
    let (text, rest) = body.split_at(length);
    *body = rest;
    core::str::from_utf8(text)
        .map(String::from)
        .map_err(|_| NotRecovery)
}
