//! Reads messages and codes out of Rust sources.
//!
//! An error's text is the `#[error("…")]` of its variant. Its codes are where a `match` names the
//! variant: a tuple of a status and a code, a tuple of an exit code and a hint, an errno, or a
//! sentence of advice. A log message is the first literal of `error!`, `warn!`, `info!` or
//! `debug!`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Expr, Lit, Pat};

/// The macros of `tracing`, by urgency.
pub(crate) const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// An enum, or a struct, and its variant.
pub(crate) type Variant = (String, String);

/// The messages of some crates.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// In the order of the sources.
    pub(crate) errors: Vec<ErrorText>,
    pub(crate) outcomes: BTreeMap<Variant, Outcome>,
    /// By level, then by file.
    pub(crate) logs: BTreeMap<(usize, String), Vec<String>>,
    /// The pairs of an HTTP status and a code that any function of the daemon returns.
    pub(crate) codes: BTreeSet<(String, u16)>,
    constants: BTreeMap<String, String>,
}

/// The text of one variant of an error.
#[derive(Debug)]
pub(crate) struct ErrorText {
    pub(crate) file: String,
    pub(crate) variant: Variant,
    pub(crate) text: String,
}

/// The codes of one variant at the borders: HTTP, command line, system call.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<String>,
    pub(crate) exit_code: Option<String>,
    pub(crate) errno: Option<String>,
    pub(crate) advice: Option<String>,
}

impl Outcome {
    /// The outcome of an error that no border names.
    pub(crate) const NONE: Self = Self {
        status: None,
        code: None,
        exit_code: None,
        errno: None,
        advice: None,
    };
}

impl Sources {
    /// Reads the Rust files below `directory`, but for those of tests.
    pub(crate) fn read_directory(&mut self, root: &Path, directory: &str) -> anyhow::Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(root.join(directory))
            .with_context(|| format!("can't list {directory}"))?
            .collect::<Result<_, _>>()?;
        // Constants of `format` are read before those who use them: the crates come in that order.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{directory}/{name}");
            if entry.file_type()?.is_dir() {
                if !["tests", "contract", "interleaved"].contains(&name.as_str()) {
                    self.read_directory(root, &path)?;
                }
            } else if entry.path().extension().is_some_and(|end| end == "rs") && name != "tests.rs"
            {
                let text = std::fs::read_to_string(entry.path())?;
                self.read(&path, &text)
                    .with_context(|| format!("can't parse {path}"))?;
            }
        }
        Ok(())
    }

    fn read(&mut self, file: &str, text: &str) -> syn::Result<()> {
        let tokens: TokenStream = text.parse()?;
        self.read_logs(file, tokens.clone());
        let parsed: syn::File = syn::parse2(tokens)?;
        let mut constants = Constants(&mut self.constants);
        constants.visit_file(&parsed);
        Reader {
            file,
            sources: self,
            of: String::new(),
            function: String::new(),
        }
        .visit_file(&parsed);
        Ok(())
    }

    /// Looks at tokens, not at the syntax tree, because `select!` has its bodies as tokens.
    fn read_logs(&mut self, file: &str, tokens: TokenStream) {
        let trees: Vec<_> = tokens.into_iter().collect();
        let mut is_test = false;
        for (index, tree) in trees.iter().enumerate() {
            let TokenTree::Group(group) = tree else {
                continue;
            };
            if group.delimiter() == Delimiter::Bracket && group.stream().to_string() == "cfg (test)"
            {
                is_test = true;
            } else if group.delimiter() == Delimiter::Brace && std::mem::take(&mut is_test) {
                continue;
            }
            let before = |back: usize| index.checked_sub(back).map(|at| trees[at].to_string());
            let level = (before(1).as_deref() == Some("!"))
                .then(|| before(2).and_then(|name| LEVELS.iter().position(|&known| known == name)))
                .flatten();
            if let Some((level, text)) = level.zip(message(group.stream())) {
                let of_file = self.logs.entry((level, file.to_owned())).or_default();
                if !of_file.contains(&text) {
                    of_file.push(text);
                }
            }
            self.read_logs(file, group.stream());
        }
    }
}

/// Returns the first argument of a macro that begins with a string literal.
fn message(arguments: TokenStream) -> Option<String> {
    let mut is_start = true;
    for tree in arguments {
        match tree {
            TokenTree::Literal(literal) if is_start => {
                let literal: syn::LitStr = syn::parse2(TokenTree::from(literal).into()).ok()?;
                return Some(literal.value());
            }
            TokenTree::Punct(punct) => is_start = punct.as_char() == ',',
            _ => is_start = false,
        }
    }
    None
}

/// Collects constants that are a string or a number.
struct Constants<'a>(&'a mut BTreeMap<String, String>);

impl<'ast> Visit<'ast> for Constants<'_> {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if let Expr::Lit(expression) = &*item.expr {
            let value = match &expression.lit {
                Lit::Str(text) => text.value(),
                Lit::Int(number) => number.base10_digits().to_owned(),
                _ => return,
            };
            self.0.insert(item.ident.to_string(), value);
        }
    }
}

/// Collects the texts of errors, and their codes.
struct Reader<'a> {
    file: &'a str,
    sources: &'a mut Sources,
    /// The type of the surrounding `impl`.
    of: String,
    /// The surrounding function.
    function: String,
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        for variant in &item.variants {
            let name = (item.ident.to_string(), variant.ident.to_string());
            self.read_text(name, &variant.attrs);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.read_text((item.ident.to_string(), String::new()), &item.attrs);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let syn::Type::Path(path) = &*item.self_ty {
            self.of = last(&path.path);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function = function.sig.ident.to_string();
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function = function.sig.ident.to_string();
        visit::visit_item_fn(self, function);
    }

    fn visit_expr_tuple(&mut self, pair: &'ast syn::ExprTuple) {
        if let Some((code, status)) = self.status_and_code(pair) {
            self.sources.codes.insert((code, status));
        }
        visit::visit_expr_tuple(self, pair);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        for variant in self.variants(&arm.pat) {
            self.read_outcome(variant, &arm.body);
        }
        visit::visit_arm(self, arm);
    }
}

impl Reader<'_> {
    fn read_text(&mut self, variant: Variant, attributes: &[syn::Attribute]) {
        let attribute = attributes
            .iter()
            .find(|attribute| attribute.path().is_ident("error"));
        if let Some(syn::Meta::List(list)) = attribute.map(|attribute| &attribute.meta)
            && let Some(text) = message(list.tokens.clone())
            // A text that is a value alone comes from elsewhere.
            && !(text.starts_with('{') && text.find('}') == text.len().checked_sub(1))
        {
            let file = self.file.to_owned();
            self.sources.errors.push(ErrorText {
                file,
                variant,
                text,
            });
        }
    }

    /// Returns the variants of enums that a pattern names.
    fn variants(&self, pattern: &Pat) -> Vec<Variant> {
        let path = match pattern {
            Pat::Or(or) => {
                return or
                    .cases
                    .iter()
                    .flat_map(|case| self.variants(case))
                    .collect();
            }
            Pat::TupleStruct(pattern) if last(&pattern.path) == "Some" => {
                return pattern
                    .elems
                    .iter()
                    .flat_map(|inner| self.variants(inner))
                    .collect();
            }
            Pat::TupleStruct(pattern) => &pattern.path,
            Pat::Struct(pattern) => &pattern.path,
            Pat::Path(pattern) => &pattern.path,
            _ => return Vec::new(),
        };
        let names: Vec<_> = path.segments.iter().map(|part| &part.ident).collect();
        match names[..] {
            [.., of, variant] if of == "Self" => vec![(self.of.clone(), variant.to_string())],
            [.., of, variant] => vec![(of.to_string(), variant.to_string())],
            _ => Vec::new(),
        }
    }

    /// Returns the code and the status of a pair `(StatusCode::…, code)`.
    fn status_and_code(&self, pair: &syn::ExprTuple) -> Option<(String, u16)> {
        let Expr::Path(first) = pair.elems.first()? else {
            return None;
        };
        if pair.elems.len() != 2 || first.path.segments.first()?.ident != "StatusCode" {
            return None;
        }
        let code = text_of(&self.sources.constants, pair.elems.last()?)?;
        // Other pairs have the body of the answer there.
        let is_code = code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_code {
            return None;
        }
        Some((code, status(&last(&first.path))?))
    }

    fn read_outcome(&mut self, variant: Variant, body: &Expr) {
        let pair = match peeled(body) {
            Expr::Tuple(pair) => self.status_and_code(pair),
            _ => None,
        };
        let constants = &self.sources.constants;
        let outcome = self.sources.outcomes.entry(variant).or_default();
        if let Some((code, status)) = pair {
            outcome.code = Some(code);
            outcome.status = Some(status);
            return;
        }
        match peeled(body) {
            Expr::Tuple(pair) if pair.elems.len() == 2 => {
                if let Expr::Path(first) = &pair.elems[0] {
                    outcome.exit_code = constants.get(&last(&first.path)).cloned();
                    outcome.advice = text_of(constants, peeled(&pair.elems[1]));
                }
            }
            Expr::Path(path) if path.path.segments[0].ident == "Errno" => {
                outcome.errno = Some(last(&path.path));
            }
            Expr::Path(path) if self.function == "cli_code" => {
                outcome.exit_code = constants.get(&last(&path.path)).cloned();
            }
            body if self.function.ends_with("advice")
                || self.file.ends_with("cli/src/report.rs") =>
            {
                outcome.advice = text_of(constants, body);
            }
            _ => {}
        }
    }
}

/// Returns the expression that a block, a `Some(…)` or parentheses have around it.
fn peeled(expression: &Expr) -> &Expr {
    match expression {
        Expr::Block(block) => match &block.block.stmts[..] {
            [syn::Stmt::Expr(inner, None)] => peeled(inner),
            _ => expression,
        },
        Expr::Call(call) if matches!(&*call.func, Expr::Path(path) if path.path.is_ident("Some")) => {
            call.args.first().map_or(expression, peeled)
        }
        _ => expression,
    }
}

/// Returns the text of a literal, or of a constant.
fn text_of(constants: &BTreeMap<String, String>, expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        Expr::Path(path) => constants.get(&last(&path.path)).cloned(),
        _ => None,
    }
}

fn last(path: &syn::Path) -> String {
    path.segments
        .last()
        .map_or_else(String::new, |part| part.ident.to_string())
}

/// Returns the number of a constant of [`http::StatusCode`].
fn status(constant: &str) -> Option<u16> {
    (100..600).find(|&number| {
        let status = http::StatusCode::from_u16(number).ok();
        let reason = status.and_then(|status| status.canonical_reason());
        reason.is_some_and(|reason| reason.to_uppercase().replace([' ', '-'], "_") == constant)
    })
}
