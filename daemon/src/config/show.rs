//! Printing the configuration for people, without secrets.

use super::Config;
use crate::base::redact;

impl Config {
    /// Returns all keys as TOML. `***` replaces credentials in URLs.
    pub fn to_shown_toml(&self) -> String {
        let mut shown = self.clone();
        for auth in shown.upstream_auth.values_mut() {
            auth.api_url = redact(&auth.api_url);
        }
        if let Some(endpoint) = &mut shown.tracing.endpoint {
            *endpoint = redact(endpoint);
        }
        // Serializing can't fail: all keys are strings, and TOML has all types of the values.
        toml::to_string_pretty(&shown).unwrap_or_default()
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.to_shown_toml();
        formatter.debug_tuple("Config").field(&shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::UpstreamConfig;

    /// Returns the packaged file without the `#` before each key.
    fn uncommented() -> String {
        let file = include_str!("../../../packaging/cachewfsd.toml");
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key.to_owned(),
            _ => line.to_owned(),
        };
        file.lines().map(|line| uncomment(line) + "\n").collect()
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let mut documented: Config = toml::from_str(&uncommented()).unwrap();
        documented.check().unwrap();

        let defaults = Config::default();
        assert_eq!(
            documented.data_dir.path().to_str(),
            Some("/var/lib/cachewfs")
        );
        assert!(documented.git.config_file.is_some(), "there is an example");
        assert_eq!(documented.git.pack_threads, 4);
        documented.data_dir.clone_from(&defaults.data_dir);
        documented.git.config_file = None;
        // These keys have no default; the file shows examples.
        documented.auth = defaults.auth.clone();
        documented.store.directory = None;
        documented.store.s3 = None;
        documented.tls = None;
        documented.upstream_auth.clear();
        assert!(
            documented.tracing.endpoint.take().is_some(),
            "there is an example"
        );
        documented.git.pack_threads = defaults.git.pack_threads;
        assert_eq!(documented, defaults);
    }

    /// Returns the keys of a section, also those without a default, or none if `section` is a key.
    fn keys_of(section: &str) -> Vec<String> {
        let header = match section {
            "" => String::new(),
            section => format!("[{section}]\n"),
        };
        // The error about an unknown key lists all known ones.
        let wrong = toml::from_str::<Config>(&format!("{header}wrong = 0"));
        let error = wrong.unwrap_err().message().to_owned();
        let Some(expected) = error.strip_prefix("unknown field `wrong`, expected ") else {
            return Vec::new();
        };
        let names = expected.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn every_key_is_documented() {
        let documented: toml::Value = toml::from_str(&uncommented()).unwrap();
        let mut sections = vec![(String::new(), &documented)];
        // Its last part is the name of a host, for which the file has an example.
        let of_host = &documented["upstream_auth"]["github.com"];
        sections.push(("upstream_auth.'github.com'".to_owned(), of_host));
        while let Some((section, documented)) = sections.pop() {
            for name in keys_of(&section) {
                let key = format!("{section}.{name}");
                let key = key.trim_start_matches('.');
                let Some(found) = documented.get(&name) else {
                    panic!("{key} is not in packaging/cachewfsd.toml");
                };
                sections.push((key.to_owned(), found));
            }
        }

        // These sections are absent by default. The test would miss their keys if it didn't find
        // them.
        for optional in ["store.s3", "tls", "upstream_auth.'github.com'"] {
            assert!(!keys_of(optional).is_empty(), "{optional}");
        }
    }

    #[test]
    fn what_is_printed_for_debugging_has_no_secrets() {
        let secret = "https://me:s3cret@git.example.com";
        let mut config: Config = toml::from_str(&format!(
            "[upstreams]\n'h.org' = '{secret}'\n[tracing]\nendpoint = '{secret}'\n\
             [upstream_auth.'h.org']\napi_url = '{secret}'",
        ))
        .unwrap();
        let variables = [
            ("CACHEWFSD_UPSTREAM_H_ORG_TOKEN", "s3cret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret"),
        ];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        config = config.with_environment(variables).unwrap();

        let printed = [
            format!("{config:?}"),
            format!("{config:#?}"),
            format!("{:?}", config.tracing.headers),
            format!("{:?}", crate::config::LiveConfig::new(config)),
        ];

        for printed in printed {
            assert!(!printed.contains("s3cret"), "{printed}");
        }
    }

    #[test]
    fn the_shown_configuration_can_be_read_back_and_has_no_secrets() {
        let mut config = Config::default();
        let secret = "https://me:s3cret@git.example.com".to_owned();
        let other = UpstreamConfig::from(secret.clone()).with_ignore_case(true);
        config.upstreams.insert("other.org".to_owned(), other);
        config
            .upstreams
            .insert("git.example.com".to_owned(), secret.into());

        let shown = config.to_shown_toml();

        assert!(!shown.contains("s3cret"), "{shown}");
        let back: Config = toml::from_str(&shown).unwrap();
        assert!(shown.contains("https://***@git.example.com"), "{shown}");
        assert_eq!(
            back.upstreams["git.example.com"].url(),
            "https://git.example.com"
        );
        assert!(back.upstreams["other.org"].ignores_case("other.org"));
        assert_eq!(back.git_http, config.git_http);
    }
}
