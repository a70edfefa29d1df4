"""Reads the settings of a checkpoint: lines of key: value, which is the YAML that mochi writes."""


def read(text):
    settings = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, value = (part.strip() for part in line.split(":", 1))
        settings[key] = value_of(value)
    settings["mochi"] = [int(n) for n in str(settings["mochi"]).split(",")]
    return settings


def value_of(text):
    text = text.strip("\"'")
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
