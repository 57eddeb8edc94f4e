//! What both sides send: the byte at i is i mod 251, so that bytes out of place are seen.

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use sha2::{Digest, Sha256};

const BLOCK: usize = 251 * 256;

fn pattern() -> Vec<u8> {
    (0..BLOCK).map(|i| (i % 251) as u8).collect()
}

/// Sends the pattern, then the end.
pub async fn send<W: AsyncWrite + Unpin>(stream: &mut W, mut size: usize) -> crate::Result<()> {
    let block = pattern();
    while size > 0 {
        let length = size.min(BLOCK);
        stream.write_all(&block[..length]).await?;
        size -= length;
    }
    Ok(stream.close().await?)
}

/// Reads everything: how much it was, and its digest.
pub async fn read_hex<R: AsyncRead + Unpin>(stream: &mut R) -> crate::Result<(usize, String)> {
    let mut buffer = vec![0; 64 * 1024];
    let (mut total, mut hash) = (0, Sha256::new());
    loop {
        let size = stream.read(&mut buffer).await?;
        if size == 0 {
            return Ok((total, format!("{:x}", hash.finalize())));
        }
        total += size;
        hash.update(&buffer[..size]);
    }
}

/// The digest of the pattern.
pub fn expected(mut size: usize) -> String {
    let (block, mut hash) = (pattern(), Sha256::new());
    while size > 0 {
        let length = size.min(BLOCK);
        hash.update(&block[..length]);
        size -= length;
    }
    format!("{:x}", hash.finalize())
}
