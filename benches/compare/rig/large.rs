//! Payloads that exceed a message: in chunks, or as sealed memory.

use std::io;
use std::time::Instant;

use tokio_seqpacket::SealedMemory;

use super::Runtimes;
use crate::contestants::{Rig, Round};
use crate::libraries::{Library, Socket, truncated};
use crate::work::{CHUNK, PAYLOAD, Payload};

pub struct Large<S> {
    sender: S,
    receiver: S,
    payload: Payload,
    bytes: Vec<u8>,
    /// The same bytes, each chunk in a buffer that a call can keep.
    chunks: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    sealed: SealedMemory,
    runtimes: Runtimes,
}

impl<S: Socket> Large<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        payload: Payload,
    ) -> io::Result<Self> {
        let (receiver, sender) = runtimes.pair(&library)?;
        let bytes = vec![7; PAYLOAD];
        let chunks: Vec<Vec<u8>> = bytes.chunks(CHUNK).map(<[u8]>::to_vec).collect();
        let sealed = SealedMemory::new(&bytes)?;
        let received = chunks.clone();
        Ok(Self { sender, receiver, payload, bytes, chunks, received, sealed, runtimes })
    }

    async fn in_chunks(
        sender: &mut S,
        receiver: &mut S,
        chunks: &mut [Vec<u8>],
        received: &mut [Vec<u8>],
    ) -> io::Result<()> {
        let sending = async {
            for chunk in chunks {
                sender.send(chunk).await?;
            }
            Ok(())
        };
        let receiving = async {
            for chunk in &mut *received {
                if receiver.recv(chunk).await? != CHUNK {
                    return Err(truncated());
                }
            }
            Ok(())
        };
        tokio::try_join!(sending, receiving)?;
        received.iter().for_each(|chunk| read(chunk));
        Ok(())
    }
}

/// A receiver reads what it gets.
fn read(bytes: &[u8]) {
    let words = bytes.as_chunks::<8>().0;
    std::hint::black_box(words.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word)));
}

impl<S: Socket> Rig for Large<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let Self { sender, receiver, payload, bytes, chunks, received, sealed, runtimes } = self;
        let begin = Instant::now();
        runtimes.run(async {
            for _ in 0..each {
                if *payload == Payload::Chunks {
                    Self::in_chunks(sender, receiver, chunks, received).await?;
                    continue;
                }
                if *payload == Payload::Sealed {
                    *sealed = SealedMemory::new(bytes)?;
                }
                sender.send_sealed(sealed).await?;
                read(&receiver.recv_sealed().await?.map()?);
            }
            Ok(())
        })?;
        Ok(Round { took: begin.elapsed(), operations: each, samples: Vec::new() })
    }
}
