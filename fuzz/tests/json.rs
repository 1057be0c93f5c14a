//! The library reads JSON as Node does: the corpus, and many texts that are made from it. If they
//! are to be others, set `SEED`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use reqwest_opencode_session_fuzz::{canonical_json, check_json};

/// What differences between readers are made of.
const PIECES: [&[u8]; 34] = [
    b"",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b",",
    b"\"",
    b"\\",
    b"null",
    b"true",
    b"0",
    b"-",
    b"1",
    b".5",
    b"e9",
    b"E+",
    b"1e999",
    b"\\ud83d",
    b"\\ude00",
    b"\\u00e9",
    b"\\u00",
    b"\\n",
    b"\"a\":",
    b" ",
    b"\t",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\0",
    b"\x7f",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"/*",
];
const KEYS: [&[u8]; 9] = [
    b"\"a\"",
    b"\"\\u0061\"",
    b"\"b\"",
    b"\"\"",
    b"\"10\"",
    b"\"2\"",
    b"\"01\"",
    b"\"__proto__\"",
    b"\"\\ud83d\"",
];
const VALUES: [&[u8]; 12] = [
    b"null",
    b"-0",
    b"0.1",
    b"-12e-3",
    b"1E400",
    b"9007199254740993",
    b"\"\"",
    b"\"\\ud83d\"",
    b"\"\\ud83d\\ude00\"",
    b"[]",
    b"{}",
    b" false ",
];

#[test]
fn json_is_read_as_node_reads_it() {
    let mut texts = corpus();
    let seed = env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let mut random = Random(seed);
    let mut short: Vec<_> = texts
        .iter()
        .filter(|text| text.len() < 300)
        .cloned()
        .collect();
    assert!(!short.is_empty());
    for _ in 0..50_000 {
        let text = random.text(&short);
        if text.len() < 300 && canonical_json(&text).is_some() {
            short.push(text.clone());
        }
        texts.push(text);
    }
    let lines = node(&texts);
    assert_eq!(lines.len(), texts.len());
    let mut read = 0;
    for (text, line) in texts.iter().zip(lines) {
        let own = canonical_json(text);
        if line == "same" {
            assert!(own.is_some());
            continue;
        }
        let shown = String::from_utf8_lossy(&text[..text.len().min(1000)]);
        assert!(
            own.clone().unwrap_or_default() == line,
            "{shown:?}: {own:?}, and Node: {line}"
        );
        check_json(text);
        read += usize::from(own.is_some());
    }
    // Both kinds must be there, or nothing was compared.
    assert!(
        read > texts.len() / 10 && read < texts.len() * 9 / 10,
        "{read} of {} were read",
        texts.len()
    );
}

/// Returns the files of the corpus, and what is too long for a file.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/json");
    let files = fs::read_dir(folder).unwrap();
    let mut texts: Vec<_> = files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    texts.sort();
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"{"a":0,"a":"#, "}")] {
        let depth = 10_000;
        texts.push(format!("{}1{}", open.repeat(depth), close.repeat(depth)).into());
    }
    texts.push("9".repeat(10_000).into());
    texts
}

fn node(texts: &[Vec<u8>]) -> Vec<String> {
    let mut child = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/json.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Node.js is installed");
    let mut input = child.stdin.take().unwrap();
    let texts = texts.to_vec();
    let writer = thread::spawn(move || {
        for text in texts {
            let length = u32::try_from(text.len()).unwrap();
            input.write_all(&length.to_le_bytes()).unwrap();
            input.write_all(&text).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// A linear congruential generator.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        const FACTOR: u64 = 6_364_136_223_846_793_005;
        self.0 = self
            .0
            .wrapping_mul(FACTOR)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn one_of<'a, T: AsRef<[u8]>>(&mut self, texts: &'a [T]) -> &'a [u8] {
        texts[self.below(texts.len())].as_ref()
    }

    /// Returns a text that is made from others: right in one of two cases, most likely.
    fn text(&mut self, texts: &[Vec<u8>]) -> Vec<u8> {
        let mut text = self.one_of(texts).to_vec();
        if self.below(2) == 0 {
            let other = self.one_of(texts);
            let keys = [self.one_of(&KEYS), self.one_of(&KEYS)];
            return match self.below(3) {
                0 => [&b"["[..], &text, b" ,", other, b"]"].concat(),
                1 => [
                    &b"{"[..],
                    keys[0],
                    b":",
                    &text,
                    b",",
                    keys[1],
                    b": ",
                    other,
                    b"}",
                ]
                .concat(),
                _ => self.one_of(&VALUES).to_vec(),
            };
        }
        let at = self.below(text.len() + 1);
        let piece = self.one_of(&PIECES);
        let removed = at + self.below(5);
        text.splice(at..removed.min(text.len()), piece.iter().copied());
        text
    }
}
