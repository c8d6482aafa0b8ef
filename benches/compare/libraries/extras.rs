//! What only this library has: streams and batches.

use std::io::{self, IoSliceMut};

use tokio_seqpacket::{Messages, MessagesOptions, UnixSeqpacket};

use super::whole;
use crate::work::SMALL;

/// As many as the library passes to the kernel at once.
const AT_ONCE: usize = 32;

pub async fn send_batches(socket: &UnixSeqpacket, mut count: usize) -> io::Result<()> {
    let mut batch = socket.batch();
    while count > 0 {
        batch.clear();
        for _ in 0..count.min(AT_ONCE) {
            batch.push(&[7; SMALL]);
        }
        count -= batch.send().await?;
    }
    Ok(())
}

pub async fn recv_batches(socket: &UnixSeqpacket, count: usize) -> io::Result<()> {
    let mut bytes = [[0; SMALL]; AT_ONCE];
    let mut infos = Vec::new();
    let mut left = count;
    while left > 0 {
        let mut buffers = bytes.each_mut().map(|bytes| IoSliceMut::new(bytes));
        let room = left.min(AT_ONCE);
        infos.clear();
        socket.recv_batch(&mut buffers[..room], &mut infos).await?;
        for info in &infos {
            whole(info.bytes_read(), &[0; SMALL])?;
        }
        left -= infos.len();
    }
    Ok(())
}

pub async fn recv_stream(socket: &UnixSeqpacket, count: usize) -> io::Result<()> {
    let mut messages = socket.messages(MessagesOptions::new().size(256))?;
    for _ in 0..count {
        one(&mut messages).await?;
    }
    Ok(())
}

async fn one(messages: &mut Messages<&UnixSeqpacket>) -> io::Result<()> {
    let message = messages.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    whole(message.len(), &[0; SMALL])
}

fn options(at_once: usize) -> MessagesOptions {
    MessagesOptions::new().buffers((2 * at_once).max(8)).size(256)
}

/// Until the peer goes.
pub async fn serve(socket: &UnixSeqpacket, at_once: usize) -> io::Result<()> {
    let mut messages = socket.messages(options(at_once))?;
    if at_once == 1 {
        while let Some(message) = messages.next().await {
            let message = message?;
            whole(socket.send(&message).await?, &message)?;
        }
        return Ok(());
    }
    let mut received = Vec::new();
    while messages.next_batch(&mut received).await? > 0 {
        let mut batch = socket.batch();
        received.iter().for_each(|message| batch.push(message));
        batch.send().await?;
        drop(batch);
        received.clear();
    }
    Ok(())
}

pub async fn ask(socket: &UnixSeqpacket, at_once: usize, count: usize) -> io::Result<()> {
    let mut messages = socket.messages(options(at_once))?;
    if at_once == 1 {
        for _ in 0..count {
            whole(socket.send(&[7; SMALL]).await?, &[0; SMALL])?;
            one(&mut messages).await?;
        }
        return Ok(());
    }
    let mut received = Vec::new();
    for _ in 0..count {
        send_batches(socket, at_once).await?;
        while received.len() < at_once {
            if messages.next_batch(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        received.clear();
    }
    Ok(())
}
