package natsserver

// IsToken says whether a name can be one token of a subject, the part between
// two dots: letters, digits, '-' and '_', at least one. It is stricter than
// NATS, so that the name also suits files and streams.
func IsToken(name string) bool {
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return name != ""
}
