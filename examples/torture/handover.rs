//! The descriptor of a socket leaves the library in mid-traffic, and comes back as another socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::history::What;
use crate::receive;
use crate::report::Count;
use crate::side::{Book, Side};

/// The same end of the same connection, with a new socket. All calls of the old one are over or dropped.
pub async fn renew(side: Arc<Side>, whole: bool) -> Option<Arc<Side>> {
    let mut side = alone(side).await;
    let was_whole = side.whole;
    loop {
        match take_apart(side) {
            Ok((fd, book, closing)) => {
                let shared = book.shared.clone();
                let _need = shared.limit.need();
                shared.counters.add(Count::Handovers, 1);
                {
                    let mut received = book.received.lock().unwrap();
                    let last = received.last;
                    received.tail.note(What::Renewed, last, was_whole.into());
                }
                match Side::with(fd, book, closing.clone(), whole) {
                    Ok(side) => return Some(side),
                    Err(_) if closing.load(Ordering::SeqCst) => return None,
                    Err(error) => {
                        shared.fail(format!("a descriptor is not taken back: {error}"));
                        return None;
                    }
                }
            }
            Err(refused) => side = refused,
        }
        // A dropped receive has left a message, or a driver has a send.
        side.count(Count::RefusedHandovers, 1);
        receive::try_one(&side);
        tokio::task::yield_now().await;
    }
}

type Parts = (OwnedFd, Book, Arc<AtomicBool>);

fn take_apart(side: Box<Side>) -> Result<Parts, Box<Side>> {
    let Side { socket, whole, stopping, closing, book } = *side;
    if whole {
        // No receive was dropped, so no message can have been left. `into_raw_fd` is this, and a number.
        book.shared.counters.add(Count::WholeHandovers, 1);
        return Ok((socket.into(), book, closing));
    }
    match socket.try_into_fd() {
        Ok(fd) => Ok((fd, book, closing)),
        Err(socket) => Err(Box::new(Side { socket, whole, stopping, closing, book })),
    }
}

/// Calls that were dropped on other threads are gone.
async fn alone(mut side: Arc<Side>) -> Box<Side> {
    loop {
        match Arc::try_unwrap(side) {
            Ok(side) => return Box::new(side),
            Err(shared) => side = shared,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
