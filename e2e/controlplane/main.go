// Command controlplane is a Kubernetes control plane for tests in one binary:
// etcd, kube-apiserver, kube-controller-manager, kubectl, and `up`, which runs
// the three servers together. See README.md.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"

	// What the upstream main packages register besides their commands.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// commands builds lazily: each upstream command claims process-wide state
// (signal handlers, feature gates) when it is constructed.
var commands = map[string]func() *cobra.Command{
	"etcd":                    newEtcdCommand,
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"up":                      newUpCommand,
}

const usage = "usage: controlplane etcd|kube-apiserver|kube-controller-manager|kubectl|up [flags]"

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	// The upstream commands parse os.Args themselves: drop our own name, so
	// that the subcommand's stands first.
	name := os.Args[1]
	os.Args = os.Args[1:]
	command := commands[name]()
	if name == "kubectl" {
		// kubectl words its own errors and has exit codes of its own.
		kubectlutil.CheckErr(cli.RunNoErrOutput(command))
		return
	}
	os.Exit(cli.Run(command))
}
