//! A thread outside of all runtimes, on which sockets and futures are dropped.

use std::sync::mpsc;
use std::thread;

#[derive(Debug)]
pub struct Elsewhere(mpsc::Sender<Box<dyn Send>>);

impl Elsewhere {
    pub fn start() -> Self {
        let (to, things) = mpsc::channel::<Box<dyn Send>>();
        thread::spawn(move || things.into_iter().for_each(drop));
        Self(to)
    }

    pub fn discard(&self, thing: impl Send + 'static) {
        // If that thread has panicked, which was reported, the thing is dropped here.
        let _ = self.0.send(Box::new(thing));
    }
}
