//! A reader for the JSON that the data files hold: objects, lists, strings without escapes, numbers, null.

use std::collections::HashMap;

/// A JSON value; a null is NaN.
#[derive(Debug)]
pub enum Json {
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(HashMap<String, Json>),
}

impl Json {
    /// The value in this file of `data`.
    pub fn read(name: &str) -> Json {
        let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Reader { text: &text, at: 0 }.value()
    }

    pub fn get(&self, key: &str) -> &Json {
        let Json::Object(fields) = self else { panic!("{key} of {self:?}") };
        fields.get(key).unwrap_or_else(|| panic!("no {key}"))
    }

    pub fn number(&self) -> f64 {
        let Json::Number(value) = self else { panic!("{self:?} is not a number") };
        *value
    }

    pub fn text(&self) -> &str {
        let Json::Text(text) = self else { panic!("{self:?} is not a string") };
        text
    }

    pub fn list(&self) -> &[Json] {
        let Json::List(items) = self else { panic!("{self:?} is not a list") };
        items
    }

    /// All numbers of a list of numbers or of lists, row-major.
    pub fn flat(&self) -> Vec<f64> {
        match self {
            Json::List(items) => items.iter().flat_map(Json::flat).collect(),
            other => vec![other.number()],
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is not white space, a comma or a colon.
    fn peek(&mut self) -> u8 {
        while matches!(self.text[self.at], b' ' | b'\n' | b'\r' | b'\t' | b',' | b':') {
            self.at += 1;
        }
        self.text[self.at]
    }

    fn until(&mut self, ends: &[u8]) -> String {
        let start = self.at;
        while self.at < self.text.len() && !ends.contains(&self.text[self.at]) {
            self.at += 1;
        }
        String::from_utf8(self.text[start..self.at].to_vec()).unwrap()
    }

    fn string(&mut self) -> String {
        self.at += 1;
        let text = self.until(b"\"");
        self.at += 1;
        text
    }

    fn value(&mut self) -> Json {
        match self.peek() {
            b'"' => Json::Text(self.string()),
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek() != b']' {
                    items.push(self.value());
                }
                self.at += 1;
                Json::List(items)
            }
            b'{' => {
                self.at += 1;
                let mut fields = HashMap::new();
                while self.peek() == b'"' {
                    let key = self.string();
                    self.peek();
                    fields.insert(key, self.value());
                }
                self.at += 1;
                Json::Object(fields)
            }
            _ => {
                let token = self.until(b",]}\n ");
                Json::Number(if token == "null" { f64::NAN } else { token.parse().unwrap() })
            }
        }
    }
}
