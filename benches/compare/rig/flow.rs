//! Messages that go one way, and connections that come and go.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use tempfile::TempDir;

use super::{Runtimes, all};
use crate::contestants::{Rig, Round};
use crate::libraries::{Library, Socket};
use crate::work::{SMALL, Way};

/// A sender and a receiver.
pub struct OneWay<S> {
    sockets: Option<(S, S)>,
    way: Way,
    runtimes: Runtimes,
}

impl<S: Socket> OneWay<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        way: Way,
    ) -> io::Result<Self> {
        let (receiver, sender) = runtimes.pair(&library)?;
        Ok(Self { sockets: Some((receiver, sender)), way, runtimes })
    }
}

async fn send<S: Socket>(mut socket: S, way: Way, count: usize) -> io::Result<S> {
    if way != Way::Plain {
        socket.send_batches(count).await?;
        return Ok(socket);
    }
    let mut message = vec![7; SMALL];
    for _ in 0..count {
        socket.send(&mut message).await?;
    }
    Ok(socket)
}

async fn receive<S: Socket>(mut socket: S, way: Way, count: usize) -> io::Result<S> {
    if way != Way::Plain {
        socket.recv_many(way, count).await?;
        return Ok(socket);
    }
    let mut buffer = vec![0; SMALL];
    for _ in 0..count {
        if socket.recv(&mut buffer).await? != SMALL {
            return Err(io::Error::other("a message was lost"));
        }
    }
    Ok(socket)
}

impl<S: Socket> Rig for OneWay<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let (receiver, sender) = self.sockets.take().ok_or("failed before")?;
        let way = self.way;
        let begin = Instant::now();
        let receiving = self.runtimes.servers().spawn(receive(receiver, way, each));
        let sockets = self.runtimes.run(async {
            let sender =
                tokio::spawn(send(sender, way, each)).await.map_err(io::Error::other)??;
            Ok((receiving.await.map_err(io::Error::other)??, sender))
        })?;
        let took = begin.elapsed();
        self.sockets = Some(sockets);
        Ok(Round { took, operations: each, samples: Vec::new() })
    }
}

/// Tasks that send on one socket.
pub struct Flood<S> {
    socket: S,
    tasks: usize,
    runtimes: Runtimes,
}

impl<S: Socket> Flood<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        tasks: usize,
    ) -> io::Result<Self> {
        let (receiver, socket) = runtimes.pair(&library)?;
        runtimes.servers().spawn(receive(receiver, Way::Plain, usize::MAX));
        Ok(Self { socket, tasks, runtimes })
    }
}

impl<S: Socket> Rig for Flood<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let begin = Instant::now();
        self.runtimes.run(async {
            let tasks: io::Result<Vec<_>> = (0..self.tasks)
                .map(|_| Ok(tokio::spawn(send(self.socket.share()?, Way::Plain, each))))
                .collect();
            all(tasks?).await
        })?;
        Ok(Round { took: begin.elapsed(), operations: each * self.tasks, samples: Vec::new() })
    }
}

/// A listener in a directory of its own.
pub struct Connect<L: Library> {
    library: L,
    listener: L::Listener,
    path: PathBuf,
    runtimes: Runtimes,
    _directory: TempDir,
}

impl<L: Library> Connect<L> {
    pub fn new(library: L, runtimes: Runtimes) -> io::Result<Self> {
        let directory = TempDir::new()?;
        let path = directory.path().join("socket");
        let listener = {
            let _entered = runtimes.near.enter();
            library.listen(&path)?
        };
        Ok(Self { library, listener, path, runtimes, _directory: directory })
    }
}

impl<L: Library> Rig for Connect<L> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let (library, listener, path) = (&self.library, &mut self.listener, &self.path);
        let begin = Instant::now();
        self.runtimes.run(async {
            for _ in 0..each {
                let (client, server) =
                    tokio::try_join!(library.connect(path), library.accept(listener))?;
                drop((client, server));
            }
            Ok(())
        })?;
        Ok(Round { took: begin.elapsed(), operations: each, samples: Vec::new() })
    }
}
