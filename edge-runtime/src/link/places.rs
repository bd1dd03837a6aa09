//! Who may hold a handshake or a session at the same time as others.
//!
//! In: addresses and callers. Out: places, which are free again when they are dropped. No address
//! can hold all handshakes, no key all sessions, and stations that may only watch make room for
//! those that may do more.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::message::Role;
use secure::PublicKey;

/// Most handshakes at the same time.
const MAX_HANDSHAKES: usize = 16;
/// Most handshakes of one address at the same time. A handshake takes milliseconds, so even many
/// stations behind one address need few.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 4;
/// Most sessions of one key at the same time: a view, a command, and what a broken link has left.
const MAX_SESSIONS_PER_KEY: usize = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one address: an IPv4 address, or the 64 bits of an IPv6 address that name a
/// network, because whoever has one address in it has all of them.
pub(super) fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// The places for handshakes.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A place for a handshake.
#[derive(Debug)]
pub(super) struct HandshakePlace<'a> {
    handshakes: &'a Handshakes,
    party: IpAddr,
}

impl Handshakes {
    /// Takes a place for an address if one is free.
    pub(super) fn take(&self, address: IpAddr) -> Option<HandshakePlace<'_>> {
        let party = party(address);
        let mut taken = lock(&self.taken);
        let own = taken.get(&party).copied().unwrap_or(0);
        if own >= MAX_HANDSHAKES_PER_ADDRESS || taken.values().sum::<usize>() >= MAX_HANDSHAKES {
            return None;
        }
        taken.insert(party, own + 1);
        Some(HandshakePlace {
            handshakes: self,
            party,
        })
    }
}

impl Drop for HandshakePlace<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.handshakes.taken);
        if let Some(own) = taken.get_mut(&self.party) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.party);
            }
        }
    }
}

/// Why a station gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    /// The station's key has as many sessions as it may.
    #[error("this station has {0} sessions already, the most for one key: end one of them first")]
    Key(usize),
    /// All sessions are taken by stations with the same role or a higher one.
    #[error("too many stations are connected: {0}")]
    All(usize),
}

/// A session that is running.
#[derive(Debug)]
struct Running {
    number: u64,
    key: PublicKey,
    role: Role,
    displaced: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct AllRunning {
    /// In the order in which they began.
    sessions: Vec<Running>,
    next_number: u64,
}

/// The places for sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    max: usize,
    running: Mutex<AllRunning>,
}

/// A place for a session.
#[derive(Debug)]
pub(super) struct SessionPlace<'a> {
    sessions: &'a Sessions,
    number: u64,
    /// Set when a station with a higher role takes the place. The session must end then.
    pub(super) displaced: Arc<AtomicBool>,
}

impl Sessions {
    /// At most `max` sessions at the same time.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            running: Mutex::default(),
        }
    }

    /// Most sessions of a key: one is left to others if there are several.
    fn max_per_key(&self) -> usize {
        MAX_SESSIONS_PER_KEY.min(self.max.saturating_sub(1)).max(1)
    }

    /// Takes a place for a station. If all are taken, the oldest session of the lowest role ends, as
    /// long as this role is lower than the station's own.
    pub(super) fn take(&self, key: &PublicKey, role: Role) -> Result<SessionPlace<'_>, NoPlace> {
        let mut running = lock(&self.running);
        let sessions = &mut running.sessions;
        let own = sessions
            .iter()
            .filter(|session| session.key == *key)
            .count();
        if own >= self.max_per_key() {
            return Err(NoPlace::Key(own));
        }
        if sessions.len() >= self.max {
            let lowest = sessions
                .iter()
                .enumerate()
                .filter(|(_, session)| session.role < role)
                // The first of those that compare equal, which is the oldest.
                .min_by_key(|(_, session)| session.role)
                .map(|(index, _)| index);
            let Some(lowest) = lowest else {
                return Err(NoPlace::All(sessions.len()));
            };
            let session = sessions.remove(lowest);
            session.displaced.store(true, Ordering::Relaxed);
        }
        let number = running.next_number;
        running.next_number += 1;
        let displaced = Arc::new(AtomicBool::new(false));
        running.sessions.push(Running {
            number,
            key: *key,
            role,
            displaced: Arc::clone(&displaced),
        });
        Ok(SessionPlace {
            sessions: self,
            number,
            displaced,
        })
    }
}

impl Drop for SessionPlace<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.sessions.running);
        running
            .sessions
            .retain(|session| session.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_address_cannot_hold_all_handshakes() {
        let handshakes = Handshakes::default();
        let mut held = Vec::new();
        while let Some(place) = handshakes.take(address(1)) {
            held.push(place);
        }
        assert_eq!(held.len(), MAX_HANDSHAKES_PER_ADDRESS);
        // The same address in another notation, and the addresses of one network.
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(handshakes.take(mapped).is_none());
        let in_network = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last).into();
        let network: Vec<_> = (0..20)
            .filter_map(|last| handshakes.take(in_network(last)))
            .collect();
        assert_eq!(network.len(), MAX_HANDSHAKES_PER_ADDRESS);
        drop(network);
        assert!(handshakes.take(address(2)).is_some());
        held.pop();
        assert!(handshakes.take(address(1)).is_some(), "free again");
        let all: Vec<_> = (2..=30)
            .filter_map(|last| handshakes.take(address(last)))
            .collect();
        assert_eq!(held.len() + all.len(), MAX_HANDSHAKES);
        drop((held, all));
        assert!(lock(&handshakes.taken).is_empty());
    }

    #[test]
    fn one_key_cannot_hold_all_sessions() {
        let sessions = Sessions::new(8);
        let held: Vec<_> = (0..8)
            .map(|_| sessions.take(&[1; 32], Role::Watch))
            .collect();
        let taken = held.iter().filter(|place| place.is_ok()).count();
        assert_eq!(taken, MAX_SESSIONS_PER_KEY);
        let refused = held[7].as_ref().unwrap_err();
        assert_eq!(*refused, NoPlace::Key(MAX_SESSIONS_PER_KEY));
        assert!(sessions.take(&[2; 32], Role::Watch).is_ok());
        drop(held);
        assert!(sessions.take(&[1; 32], Role::Watch).is_ok());
        // Where there are few, one is left to others; where there is one, it can be taken.
        let few = Sessions::new(2);
        let _first = few.take(&[1; 32], Role::Watch).unwrap();
        let refused = few.take(&[1; 32], Role::Watch).unwrap_err();
        assert_eq!(refused, NoPlace::Key(1));
        assert!(few.take(&[2; 32], Role::Watch).is_ok());
        assert!(Sessions::new(1).take(&[1; 32], Role::Watch).is_ok());
    }

    #[test]
    fn a_higher_role_takes_the_oldest_place_of_the_lowest() {
        let sessions = Sessions::new(3);
        let operator = sessions.take(&[1; 32], Role::Operate).unwrap();
        let older = sessions.take(&[2; 32], Role::Watch).unwrap();
        let newer = sessions.take(&[3; 32], Role::Watch).unwrap();
        let refused = sessions.take(&[4; 32], Role::Watch).unwrap_err();
        assert_eq!(refused, NoPlace::All(3));
        let displaced = |place: &SessionPlace<'_>| place.displaced.load(Ordering::Relaxed);
        let first = sessions.take(&[5; 32], Role::Engineer).unwrap();
        assert!(displaced(&older) && !displaced(&newer) && !displaced(&operator));
        // The place of a session that has to end is not freed a second time.
        drop(older);
        let second = sessions.take(&[6; 32], Role::Engineer).unwrap();
        assert!(displaced(&newer) && !displaced(&operator));
        let third = sessions.take(&[7; 32], Role::Engineer).unwrap();
        assert!(displaced(&operator));
        let refused = sessions.take(&[8; 32], Role::Engineer).unwrap_err();
        assert_eq!(refused, NoPlace::All(3));
        drop((first, second, third));
        assert!(sessions.take(&[9; 32], Role::Watch).is_ok());
    }
}
