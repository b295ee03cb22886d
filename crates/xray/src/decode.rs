//! From a PNG file to gray values of 8 bits, in integers.
//!
//! | in the file | rule |
//! |---|---|
//! | gray of 1, 2 or 4 bits | times 255, 85 or 17, exact |
//! | 16 bits | `(v + 128) / 257` rounded down, which is `v·255/65535` to the nearest |
//! | RGB, palette | luma `(19595·R + 38470·G + 7471·B + 32768) >> 16` (ITU-R BT.601); R=G=B stays as it is |
//! | alpha, transparent colour | ignored: NIH's few RGBA files are opaque |
//! | gamma, colour profile, text, data beyond the last row, bytes after the end | ignored |
//! | interlaced | as the plain twin |
//! | an index beyond the palette | an error |
//!
//! Every checksum is verified and the file must reach its end chunk, so a damaged file is an error and
//! never a half-gray image.

use crate::error::DataError;
use png::{ColorType, InterlaceInfo};
use std::path::Path;

/// A gray image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gray {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height` rows of `width` values, the top row first.
    pub pixels: Vec<u8>,
}

/// No image file is larger; the real ones have up to 1 MB.
const MAX_FILE: u64 = 32 << 20;
/// No image has more pixels (4096 × 4096).
const MAX_PIXELS: u64 = 1 << 24;
/// No side is longer.
const MAX_SIDE: u32 = 16_384;

/// Reads a PNG file.
///
/// # Errors
/// The path is no regular file, or its content is no complete and sound PNG image of at most 16,384 pixels
/// a side and 16,777,216 in all. The message names the file.
pub fn read_png(path: &Path) -> Result<Gray, DataError> {
    let bytes = crate::read_file(path, MAX_FILE)?;
    decode_png(&bytes).map_err(|problem| DataError::Image { path: path.to_owned(), problem })
}

/// Decodes the content of a PNG file.
///
/// # Errors
/// What is wrong with it, as text without the file's name.
pub fn decode_png(bytes: &[u8]) -> Result<Gray, String> {
    if bytes.is_empty() {
        return Err("the file is empty; fetch it again".to_owned());
    }
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(format!("no PNG image but {}; convert it or fetch it again", kind_of(bytes)));
    }
    let mut options = png::DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_skip_ancillary_crc_failures(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = png::Decoder::new_with_options(std::io::Cursor::new(bytes), options.clone());
    decoder.set_limits(png::Limits { bytes: 16 << 20 });
    decoder.set_transformations(png::Transformations::EXPAND);

    let header = decoder.read_header_info().map_err(explain)?;
    let (width, height) = (header.width, header.height);
    let side = width.max(height);
    if side > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "{width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are read, so shrink the image"
        ));
    }
    let mut reader = decoder.read_info().map_err(explain)?;
    if reader.info().color_type == ColorType::Indexed {
        check_palette(bytes, &options)?;
    }
    let (color, depth) = reader.output_color_type();
    let wide = depth == png::BitDepth::Sixteen;
    let (width, height) = (width as usize, height as usize);
    let mut pixels = vec![0; width * height];
    let mut gray = Vec::with_capacity(width);
    let mut y = 0;
    while let Some(row) = reader.next_interlaced_row().map_err(explain)? {
        gray.clear();
        to_gray(row.data(), color, wide, &mut gray)?;
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                pixels[y * width..(y + 1) * width].copy_from_slice(&gray);
                y += 1;
            }
            InterlaceInfo::Adam7(pass) => png::expand_interlaced_row(&mut pixels, width, &gray, pass, 8),
        }
    }
    reader.finish().map_err(explain)?;
    Ok(Gray { width, height, pixels })
}

/// Says whether every pixel has a colour in the palette: expanding takes black for those that have none.
fn check_palette(bytes: &[u8], options: &png::DecodeOptions) -> Result<(), String> {
    let decoder = png::Decoder::new_with_options(std::io::Cursor::new(bytes), options.clone());
    let mut reader = decoder.read_info().map_err(explain)?;
    let info = reader.info();
    let (width, bits) = (info.width as usize, info.bit_depth as usize);
    let colors = info.palette.as_ref().map_or(0, |palette| palette.len() / 3);
    let mut image = vec![0; reader.output_buffer_size().ok_or("the PNG file needs too much memory")?];
    reader.next_frame(&mut image).map_err(explain)?;
    for row in image.chunks_exact((width * bits).div_ceil(8)) {
        for x in 0..width {
            let bit = x * bits;
            let index = usize::from(row[bit / 8] >> (8 - bits - bit % 8)) & ((1 << bits) - 1);
            if index >= colors {
                return Err(format!(
                    "damaged PNG file (colour {index} of a palette of {colors}); fetch the file again"
                ));
            }
        }
    }
    Ok(())
}

/// Appends the gray values of one row.
fn to_gray(row: &[u8], color: ColorType, wide: bool, gray: &mut Vec<u8>) -> Result<(), String> {
    let channels = color.samples();
    match (color, wide) {
        (ColorType::Grayscale, false) => gray.extend_from_slice(row),
        (ColorType::GrayscaleAlpha, false) => {
            gray.extend(row.chunks_exact(channels).map(|v| v[0]));
        }
        (ColorType::Grayscale | ColorType::GrayscaleAlpha, true) => {
            gray.extend(row.chunks_exact(2 * channels).map(|v| narrow(v[0], v[1])));
        }
        (ColorType::Rgb | ColorType::Rgba, false) => {
            gray.extend(row.chunks_exact(channels).map(|v| luma(v[0], v[1], v[2])));
        }
        (ColorType::Rgb | ColorType::Rgba, true) => {
            let of = |v: &[u8]| luma(narrow(v[0], v[1]), narrow(v[2], v[3]), narrow(v[4], v[5]));
            gray.extend(row.chunks_exact(2 * channels).map(of));
        }
        (ColorType::Indexed, _) => return Err("a palette that was not expanded".to_owned()),
    }
    Ok(())
}

/// A 16-bit value in 8 bits, to the nearest.
fn narrow(high: u8, low: u8) -> u8 {
    ((u32::from(high) * 256 + u32::from(low) + 128) / 257) as u8
}

/// The luma of ITU-R BT.601 in 16-bit fixed point; the weights sum to 65536.
fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 32_768) >> 16) as u8
}

fn explain(error: png::DecodingError) -> String {
    let remedy = "fetch the file again";
    match error {
        png::DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            format!("the PNG file ends too early; {remedy}")
        }
        png::DecodingError::LimitsExceeded => {
            "the PNG file needs too much memory; shrink the image".to_owned()
        }
        error => {
            let text = error.to_string();
            // Of a checksum the decoder shows its own structures.
            let text = if text.starts_with("CRC error") { "a checksum is wrong" } else { &text };
            format!("damaged PNG file ({}); {remedy}", text.trim_end_matches('.'))
        }
    }
}

/// What a file that is no PNG seems to be.
fn kind_of(bytes: &[u8]) -> &'static str {
    let text = bytes.trim_ascii_start();
    match bytes {
        [0xff, 0xd8, 0xff, ..] => "a JPEG image",
        [b'B', b'M', ..] => "a BMP image",
        [b'G', b'I', b'F', b'8', ..] => "a GIF image",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF image",
        [0x1f, 0x8b, ..] => "a gzip archive",
        _ if bytes.get(128..132) == Some(b"DICM") => "a DICOM file",
        _ if b"\x89PNG\r\n\x1a\n".starts_with(bytes) => "the first bytes of one",
        _ if text.first() == Some(&b'<') => "an HTML or XML page, perhaps a server's error message",
        _ => "something unknown",
    }
}
