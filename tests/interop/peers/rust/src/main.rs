//! A Yamux peer for the tests: one session over TCP or TLS, with the `yamux` crate.
//!
//! See ../README.md for its command line and for the commands that it reads.

mod bytes;
mod session;
mod wire;

use std::error::Error;
use std::sync::Arc;

use futures::future::try_join;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use tokio::io::AsyncBufReadExt;
use tokio::sync::{watch, Semaphore};

use bytes::{expected, read_hex, send};
use session::{Session, Stream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = wire::Options::parse();
    let connection = wire::connect(&options).await?;
    let (release, released) = watch::channel(false);
    let mode = options.get("mode").unwrap_or("echo").to_owned();
    let accept = move |stream: Stream| {
        let (mode, released) = (mode.clone(), released.clone());
        tokio::spawn(async move {
            match serve(stream, &mode, released).await {
                Ok(()) => println!("seen done"),
                Err(error) => println!("seen error {error}"),
            }
        });
    };
    let library = options.get("library").unwrap_or("0.14");
    let session = Arc::new(session::start(
        library,
        connection,
        options.listens(),
        accept,
    )?);
    let mut peer = Peer {
        session,
        release,
        unused: Vec::new(),
    };
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match peer.obey(&line).await {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => println!("failed {error}"),
        }
    }
    Ok(())
}

// --- Streams that come in ---------------------------------------------------------------------

async fn serve(mut stream: Stream, mode: &str, mut released: watch::Receiver<bool>) -> Result<()> {
    match mode.split_once(':').unwrap_or((mode, "")) {
        ("echo", _) => echo_back(stream).await,
        ("answer", _) => answer(stream).await,
        ("hold", _) => {
            released.wait_for(|released| *released).await?;
            answer(stream).await
        }
        ("source", size) => {
            send(&mut stream, size.parse()?).await?;
            read_hex(&mut stream).await?;
            Ok(())
        }
        ("reset", _) => {
            stream.read_exact(&mut [0]).await?;
            Ok(()) // the library resets what is dropped
        }
        _ => Err(format!("unknown mode {mode}").into()),
    }
}

async fn echo_back(mut stream: Stream) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let size = stream.read(&mut buffer).await?;
        if size == 0 {
            break;
        }
        stream.write_all(&buffer[..size]).await?;
        stream.flush().await?;
    }
    Ok(stream.close().await?)
}

/// Reads everything and then says what it was.
async fn answer(mut stream: Stream) -> Result<()> {
    let (_, found) = read_hex(&mut stream).await?;
    stream.write_all(found.as_bytes()).await?;
    Ok(stream.close().await?)
}

// --- Commands ---------------------------------------------------------------------------------

struct Peer {
    session: Arc<Session>,
    release: watch::Sender<bool>,
    unused: Vec<Stream>,
}

impl Peer {
    async fn obey(&mut self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or("");
        let numbers: Vec<usize> = words
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        match (command, numbers.as_slice()) {
            ("echo", [count, size, parallel]) => self.echo(*count, *size, *parallel).await?,
            ("ask", [size]) => return self.ask(*size).await,
            ("reset", []) => self.reset().await?,
            ("wait", []) => return self.wait().await,
            ("unused", []) => self.unused.push(self.session.open().await?),
            ("release", []) => {
                self.release.send_replace(true);
            }
            ("close", []) => self.session.close().await?,
            _ => return Err(format!("cannot {command}").into()),
        }
        Ok(String::new())
    }

    /// Opens `count` streams, at most `parallel` at a time, and wants on each what it sent.
    async fn echo(&self, count: usize, size: usize, parallel: usize) -> Result<()> {
        let slots = Arc::new(Semaphore::new(parallel));
        let mut tasks = Vec::new();
        for _ in 0..count {
            let slot = slots.clone().acquire_owned().await?;
            let session = self.session.clone();
            tasks.push(tokio::spawn(async move {
                let result = echo_once(&session, size).await;
                drop(slot);
                result
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    /// Sends, says that this was all, and then reads the answer.
    async fn ask(&self, size: usize) -> Result<String> {
        let mut stream = self.session.open().await?;
        send(&mut stream, size).await?;
        let (length, found) = read_hex(&mut stream).await?;
        Ok(format!("{length} {found}"))
    }

    /// Waits for a byte, so that the stream is known, and resets it.
    async fn reset(&self) -> Result<()> {
        let mut stream = self.session.open().await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await?;
        Ok(())
    }

    /// Says how a stream ended.
    async fn wait(&self) -> Result<String> {
        let mut stream = self.session.open().await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        Ok(match read_hex(&mut stream).await {
            Ok(_) => "end".to_owned(),
            Err(_) => "reset".to_owned(),
        })
    }
}

async fn echo_once(session: &Session, size: usize) -> Result<()> {
    let (mut reader, mut writer) = session.open().await?.split();
    let sending = async { send(&mut writer, size).await };
    let reading = async { read_hex(&mut reader).await };
    let ((), (_, found)) = try_join(sending, reading).await?;
    if found != expected(size) {
        return Err("the echo differs".into());
    }
    Ok(())
}
