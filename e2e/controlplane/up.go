package main

import (
	"os"

	"github.com/spf13/cobra"
	"keyferry.dev/e2e/controlplane/supervisor"
)

// newUpCommand runs the three servers as children of this process.
func newUpCommand() *cobra.Command {
	options := supervisor.Options{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	command := &cobra.Command{
		Use:          "up --dir DIR",
		Short:        "Run a control plane until stdin ends, `stop` is read or a signal comes",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return supervisor.Run(options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Dir, "dir", "", "folder of everything it writes: new, empty, or left by an earlier run")
	flags.BoolVar(&options.Audit, "audit", false, "write DIR/audit.log, one line a request")
	flags.StringVar(&options.EmulatedVersion, "emulated-version", "", "behave like this Kubernetes version, 1.33 to 1.36")
	flags.IntVar(&options.MinRequestTimeout, "min-request-timeout", 0, "seconds after which watches end, at the earliest (0: the API server's default)")
	flags.StringArrayVar(&options.APIServerArguments, "apiserver-arg", nil, "further flag for the API server, as --apiserver-arg=--flag=value (repeatable)")
	flags.BoolVar(&options.DetachStdin, "detach-stdin", false, "do not read stdin; run until SIGINT or SIGTERM")
	flags.BoolVar(&options.PrintExport, "print-export", false, "when ready print an `export KUBECONFIG=` line instead of JSON")
	flags.BoolVar(&options.Keep, "keep", false, "keep etcd's data on the way out, for a later run in the same DIR")
	if err := command.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag was defined above
	}
	return command
}
