"""Texts on which tokenizers differ, for fixtures and checks of classifiers and language models."""

TEXTS = [
    "I will help you with that.",
    "You are an idiot, and I hope that you fall down the stairs!",
    "",
    "   \t\n ",
    "no",
    "NO! No? no... (no) [no] {no} no/no no-no no_no #no @no $no %no ^no no+no=no <no> ~no |no| "
    "`no` \"no\" 'no'",
    "Don't; won't, can't - it's y'all's: \u201cquoted\u201d \u2018so\u2019 \u2013 \u2014 \u2026 "
    "\u00abguillemets\u00bb",
    "Crème brûlée, naïve façade, Ångström, Żółć, ĲSSELMEER, straße, ŒUVRE, İstanbul IĞDIR, ǅ ﬁne",
    "e\u0301 and é, n\u0303 and ñ, a\u0308\u0301\u0323 stacked, \u0301 alone",
    "日本語のテキスト 中文文本，标点。 한국어 텍스트 "
    "ไทย हिन्दी العربيّة עִבְרִית Ελληνικά Σίσυφος русский ёлка",
    "𝔣𝔯𝔞𝔨𝔱𝔲𝔯 ①②③ ½ ² ｆｕｌｌｗｉｄｔｈ 𠀀𠮷",
    "🙂👍🏽 👩\u200d👩\u200d👧 ❤\ufe0f flag 🇩🇪 keycap 1\ufe0f\u20e3",
    "zero\u200bwidth\u200cjoin\u200der\u2060word\ufeffmark soft\u00adhyphen nb\u00a0space "
    "thin\u2009space ideo\u3000space line\u2028sep",
    "null\x00bell\x07escape\x1bdelete\x7fc1\x85 private\ue000 replacement\ufffd end",
    "tab\tnew\nline\r\nreturn\rvertical\x0bform\x0cfeed",
    "[CLS] [SEP] and [MASK][PAD] [UNK] but [sep] [ MASK ] [MASK",
    "<|endoftext|> <|im_start|>user <|im_end|> <s> </s>",
    "a" * 100 + " " + "b" * 101 + " " + "unbelievably" * 9,
    "http://example.org/a?b=c&d=1,234.50#e mail@example.org "
    "12345678901234567890 3.14159 1e-7 0xFF v2.0.1",
    "CamelCaseWordsAndALLCAPS mixed123numbers456 i18n l10n h4x0r",
    "\n\nHuman: How do I kill a process?\n\nAssistant: First, list what is running.",
    "  two leading spaces, trailing spaces   ",
    "word " * 40 + "end",
    "It was the best of times, it was the worst of times; you fool! " * 70,
]
