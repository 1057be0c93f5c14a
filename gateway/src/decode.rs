//! Reads compressed bodies from a copy: what is forwarded stays as it is.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use reqwest_opencode_session::testing::record::Answer;

use crate::answer::AnswerReader;

/// Reads an answer, compressed or not, as it comes.
pub struct Decoder {
    reader: Shared<AnswerReader>,
    /// `None` if the compression is unknown or the data is broken.
    writer: Option<Box<dyn Write + Send>>,
}

impl Decoder {
    pub fn new(headers: &HeaderMap, reader: AnswerReader) -> Self {
        let reader = Shared(Arc::new(Mutex::new(reader)));
        Self {
            writer: decoding(headers, reader.clone()),
            reader,
        }
    }

    pub fn read(&mut self, data: &[u8]) {
        if let Some(writer) = &mut self.writer {
            // Flushed, so that what has come so far is read now.
            if writer
                .write_all(data)
                .and_then(|()| writer.flush())
                .is_err()
            {
                self.writer = None;
            }
        }
    }

    /// Returns what is known of the answer so far.
    pub fn so_far(&self) -> Answer {
        let reader = self.reader.0.lock().unwrap_or_else(PoisonError::into_inner);
        reader.answer()
    }

    /// Returns what is known of the answer at its end.
    pub fn finish(self) -> Answer {
        drop(self.writer);
        let reader = Arc::into_inner(self.reader.0).expect("its one other owner was dropped");
        let reader = reader.into_inner().unwrap_or_else(PoisonError::into_inner);
        reader.finish()
    }
}

/// Returns a whole body, decoded; empty if that is impossible within the limit.
pub fn whole(headers: &HeaderMap, body: Vec<u8>, limit: usize) -> Vec<u8> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return body;
    }
    let decoded = Shared(Arc::new(Mutex::new(Bounded {
        bytes: vec![],
        limit,
    })));
    let written = decoding(headers, decoded.clone()).is_some_and(|mut writer| {
        writer
            .write_all(&body)
            .and_then(|()| writer.flush())
            .is_ok()
    });
    let mut decoded = decoded.0.lock().unwrap_or_else(PoisonError::into_inner);
    match written {
        true => std::mem::take(&mut decoded.bytes),
        false => vec![],
    }
}

/// Returns a writer that decodes what is written to it by the codings that the headers name.
fn decoding(
    headers: &HeaderMap,
    sink: impl Write + Send + 'static,
) -> Option<Box<dyn Write + Send>> {
    let mut writer: Box<dyn Write + Send> = Box::new(sink);
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let names: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    let names = names?.join(",").to_ascii_lowercase();
    // The coding that was applied last is removed first, so it is the outermost writer.
    for name in names.split(',').map(str::trim) {
        writer = match name {
            "" | "identity" => writer,
            "gzip" | "x-gzip" => Box::new(flate2::write::MultiGzDecoder::new(writer)),
            "deflate" => Box::new(flate2::write::ZlibDecoder::new(writer)),
            "br" => Box::new(brotli_decompressor::DecompressorWriter::new(writer, 4096)),
            "zstd" => Box::new(unzstd(writer).ok()?),
            _ => return None,
        };
    }
    Some(writer)
}

fn unzstd<W: Write>(writer: W) -> io::Result<zstd::stream::write::Decoder<'static, W>> {
    /// The largest window of this coding, as a power of 2: 8 MB (RFC 9659, section 3).
    const LARGEST_WINDOW: u32 = 23;

    let mut decoder = zstd::stream::write::Decoder::new(writer)?;
    decoder.window_log_max(LARGEST_WINDOW)?;
    Ok(decoder)
}

/// A writer that can be read while something else owns a clone of it.
struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Write for Shared<AnswerReader> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Shared<Bounded> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut bounded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bounded.bytes.len() + data.len() > bounded.limit {
            return Err(io::Error::other("the body is too long"));
        }
        bounded.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
