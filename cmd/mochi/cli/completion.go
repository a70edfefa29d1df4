package cli

import (
	"io"
	"strings"
)

// NewCompletion is the command that prints a shell's completion of the program
// that takes it.
func NewCompletion() *Command {
	shells := []string{"bash", "zsh", "fish"}
	c := NewCommand("completion SHELL", Text{
		Short: "print the completion of commands, flags and their values for a shell: " + strings.Join(shells, ", ") + " (bash needs the package bash-completion)",
		Example: "mochi completion bash > /etc/bash_completion.d/mochi\n" +
			"mochi completion zsh > \"${fpath[1]}/_mochi\"\n" +
			"mochi completion fish > ~/.config/fish/completions/mochi.fish",
	})
	c.values = shells
	c.Run = func(args []string, out, _ io.Writer) error {
		root := c.cobra.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(out, true)
		case "zsh":
			return root.GenZshCompletion(out)
		case "fish":
			return root.GenFishCompletion(out, true)
		}
		return Usagef("completion: SHELL %q is not known; there are %s", args[0], strings.Join(shells, ", "))
	}
	return c
}
