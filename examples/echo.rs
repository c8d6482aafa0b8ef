//! Sends each message back to its sender.
//!
//! `cargo run --example echo -- /tmp/echo.sock` serves, until Ctrl-C;
//! `cargo run --example echo -- /tmp/echo.sock "a message"` sends one and prints the answer.

use std::io;

use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [path] => {
            let listener = UnixSeqpacketListener::bind(path)?;
            let ended = tokio::select! {
                ended = serve(listener) => ended,
                ended = tokio::signal::ctrl_c() => ended,
            };
            // The library leaves the socket file where it is: only the program knows whether the file is still its own.
            std::fs::remove_file(path)?;
            ended
        }
        [path, message] => {
            let socket = UnixSeqpacket::connect(path).await?;
            socket.send(message.as_bytes()).await?;
            let mut buffer = vec![0; message.len()];
            let len = socket.recv(&mut buffer).await?;
            println!("{}", String::from_utf8_lossy(&buffer[..len]));
            Ok(())
        }
        _ => Err(io::Error::other("usage: echo PATH [MESSAGE]")),
    }
}

async fn serve(listener: UnixSeqpacketListener) -> io::Result<()> {
    loop {
        let socket = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = echo(socket).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

async fn echo(socket: UnixSeqpacket) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1 << 18);
    loop {
        buffer.clear();
        // The calls take the buffer and give it back with the result.
        let (received, bytes) = socket.recv_owned(buffer).await;
        // The end of the stream, or an empty message, which ends this service, too. `end_of_stream`
        // distinguishes them.
        if received?.message_len() == 0 {
            return Ok(());
        }
        let (sent, bytes) = socket.send_owned(bytes).await;
        sent?;
        buffer = bytes;
    }
}
