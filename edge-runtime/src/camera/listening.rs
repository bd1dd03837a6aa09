//! Sockets whose address may not be there yet: inspection does not wait for a network.
//!
//! In: an address. Out: a listener, as soon as the address can be used.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use edge_runtime::report::queue::Reporter;
use proto::message::cut_text;
use proto::report::Event;

/// Pause between two attempts to listen on an address.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Longest wait before the thread checks whether to end.
const ROUND: Duration = Duration::from_millis(20);

/// The address of a listener, once it listens. Port 0 is replaced by the port that it got.
pub(super) type Bound = Arc<OnceLock<SocketAddr>>;

/// A socket that listens as soon as its address is there.
pub(super) struct Listening {
    name: &'static str,
    address: SocketAddr,
    listen: fn(SocketAddr) -> io::Result<TcpListener>,
    listener: Option<TcpListener>,
    failed: Option<io::Error>,
    bound: Bound,
}

impl Listening {
    /// Tries once.
    pub(super) fn new(
        name: &'static str,
        address: SocketAddr,
        listen: fn(SocketAddr) -> io::Result<TcpListener>,
    ) -> Self {
        let mut listening = Self {
            name,
            address,
            listen,
            listener: None,
            failed: None,
            bound: Bound::default(),
        };
        listening.failed = listening.attempt().err();
        listening
    }

    /// The address, once the socket listens.
    pub(super) fn bound(&self) -> Bound {
        Arc::clone(&self.bound)
    }

    fn attempt(&mut self) -> io::Result<()> {
        let listener = (self.listen)(self.address)?;
        self.bound.set(listener.local_addr()?).ok();
        self.listener = Some(listener);
        Ok(())
    }

    /// The listener. If there is none yet, reports that once and tries again until `stop` is set.
    pub(super) fn wait(&mut self, stop: &AtomicBool, reporter: &Reporter) -> Option<&TcpListener> {
        let mut reported = false;
        while self.listener.is_none() {
            if let Some(error) = self.failed.take()
                && !std::mem::replace(&mut reported, true)
            {
                let reason = format!("{error}; inspection goes on, and it is tried again");
                tracing::error!(reason, "{}", self.name);
                reporter.event(Event::StageRestarted {
                    stage: self.name.to_owned(),
                    reason: cut_text(&reason),
                });
            }
            let failed = Instant::now();
            while failed.elapsed() < AGAIN_AFTER {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                std::thread::sleep(ROUND);
            }
            self.failed = self.attempt().err();
        }
        if reported {
            tracing::info!(address = %self.address, "{} listens now", self.name);
        }
        self.listener.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use edge_runtime::metrics::Metrics;
    use edge_runtime::report::queue::channel;

    use super::*;

    fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address)
    }

    #[test]
    fn an_address_that_is_taken_is_tried_again_until_it_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        let (reporter, _inbox) = channel(false, metrics);
        let mut listening = Listening::new("tcp", address, bind);
        let bound = listening.bound();
        assert!(bound.get().is_none());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| listening.wait(&stop, &reporter).is_some());
            std::thread::sleep(Duration::from_millis(100));
            assert!(!waits.is_finished());
            drop(taken);
            assert!(waits.join().unwrap());
        });
        assert_eq!(bound.get(), Some(&address));
    }
}
