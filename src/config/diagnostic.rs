//! Problems of a configuration file, and their rendering: message, location, the source line with a caret, a hint.
//!
//! A report has its own copy of the source, with secrets masked, so that rendering it never shows a secret.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

/// Maximum number of problems in a rendering. If there are more, they most likely have a single cause.
const MAX_RENDERED: usize = 100;

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is rejected.
    Error,
    /// The file is accepted.
    Warning,
}

/// One problem of a file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Whether the file is rejected.
    pub severity: Severity,
    /// The description of the problem.
    pub message: String,
    /// The byte range in the file. `None` means the file as a whole.
    pub span: Option<Range<usize>>,
    /// A related byte range, and its label.
    pub related: Option<(Range<usize>, String)>,
    /// A suggestion for a fix.
    pub hint: Option<String>,
}

/// Whether a rendering uses colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours, for a terminal.
    Ansi,
    /// Plain text.
    Plain,
}

/// All problems of one file, in the order of the file.
#[derive(Clone, Debug)]
pub struct DiagnosticReport {
    file: String,
    /// The file's text with secrets masked.
    source: String,
    diagnostics: Vec<Diagnostic>,
}

// === impl Diagnostic ===

impl Diagnostic {
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), span: None, related: None, hint: None }
    }

    pub(super) fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    #[must_use]
    pub(super) fn at(self, span: Range<usize>) -> Self {
        Self { span: Some(span), ..self }
    }

    #[must_use]
    pub(super) fn related(self, span: Range<usize>, label: impl Into<String>) -> Self {
        Self { related: Some((span, label.into())), ..self }
    }

    #[must_use]
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

// === impl DiagnosticReport ===

impl DiagnosticReport {
    /// `source` must have its secrets masked.
    pub(super) fn new(file: &Path, source: String, mut diagnostics: Vec<Diagnostic>) -> Self {
        // Problems of the file as a whole come last.
        diagnostics.sort_by_key(|diagnostic| match &diagnostic.span {
            Some(span) => (span.start, span.end),
            None => (usize::MAX, usize::MAX),
        });
        Self { file: file.display().to_string(), source, diagnostics }
    }

    /// Returns the problems in the order of the file. Those of the file as a whole come last.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Returns whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Returns whether one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Returns the location of a problem as `file:line:column`, or the file alone if the problem has no position.
    pub fn location(&self, diagnostic: &Diagnostic) -> String {
        let Some(span) = &diagnostic.span else { return self.file.clone() };
        let start = self.source.floor_char_boundary(span.start);
        let before = self.source.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", self.file)
    }

    /// Renders the problems as human-readable text, separated by blank lines.
    pub fn render(&self, colour: Colour) -> String {
        let renderer = match colour {
            Colour::Ansi => Renderer::styled(),
            Colour::Plain => Renderer::plain(),
        };
        let mut text = String::new();
        for diagnostic in self.diagnostics.iter().take(MAX_RENDERED) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&renderer.render(&[self.group(diagnostic)]));
            text.push('\n');
        }
        let more = self.diagnostics.len().saturating_sub(MAX_RENDERED);
        if more > 0 {
            text.push_str(&format!("\n{more} more problems are not shown\n"));
        }
        text
    }

    fn group<'r>(&'r self, diagnostic: &'r Diagnostic) -> Group<'r> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&diagnostic.message);
        let group = match &diagnostic.span {
            Some(span) => title.element(
                Snippet::source(&self.source)
                    .path(&self.file)
                    .annotation(AnnotationKind::Primary.span(self.first_line(span)))
                    .annotations(self.related(diagnostic)),
            ),
            None => title.element(Origin::path(&self.file)),
        };
        // The renderer removes control characters from titles and source, but not from hints.
        let hint = diagnostic.hint.iter();
        group.elements(hint.map(|hint| Level::HELP.with_name("hint").message(normalize_untrusted_str(hint))))
    }

    fn related<'r>(&'r self, diagnostic: &'r Diagnostic) -> Option<Annotation<'r>> {
        let (span, label) = diagnostic.related.as_ref()?;
        Some(AnnotationKind::Context.span(self.first_line(span)).label(label.as_str()))
    }

    /// Returns the part of `span` on its first line, so that a problem of a table does not underline all of it.
    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.source.floor_char_boundary(span.start);
        let end = self.source.ceil_char_boundary(span.end.max(start));
        let text = self.source.get(start..end).unwrap_or_default();
        start..start + text.lines().next().unwrap_or_default().len()
    }
}

/// Renders without colours.
impl fmt::Display for DiagnosticReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Colour::Plain).trim_end())
    }
}
