# A guest for q35: says "up" on COM1, answers what it is sent, and minds the power button or not.
# Assembled with MODE: 0 switches off at the power button, 1 ignores it, 2 switches off at once.

        .set    COM1,     0x3f8
        .set    PM,       0x600         # where the ACPI registers are to appear
        .set    STATUS,   PM            # power button: bit 8
        .set    ENABLE,   PM + 2        # the same bit: the status is only kept for what is enabled
        .set    CONTROL,  PM + 4        # 0x2000: sleep state 5, off
        .set    TICK_IRQ, 8

        .macro  write port, value
        movb    $\value, %al
        outb    %al, $\port
        .endm

        .macro  write_pci register, value, width
        movl    $(0x8000f800 + (\register)), %eax   # LPC bridge 0:1f.0
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movw    $0xcfc, %dx
        movl    $(\value), %eax
        out\width
        .endm

        .macro  outl_
        outl    %eax, %dx
        .endm
        .macro  outb_
        outb    %al, %dx
        .endm

        .code16
        .text
        .globl  _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0x7000, %sp

        write_pci 0x40, (PM + 1), l_
        write_pci 0x44, 0x80, b_

        movw    $ENABLE, %dx
        movw    $0x100, %ax
        outw    %ax, %dx

        # An interrupt of the timer 18 times a second, so that waiting costs no processor time. The
        # old interrupt controller is heard through the local APIC, which lies above what real mode
        # reaches: a segment's limit that was loaded in protected mode stays.
        lgdtl   %cs:gdt_pointer - 0xf0000
        movl    %cr0, %eax
        incw    %ax
        movl    %eax, %cr0
        movw    $8, %cx
        movw    %cx, %ds
        decw    %ax
        movl    %eax, %cr0
        movl    $0xfee00000, %ebx
        movl    $0x1ff, 0xf0(%ebx)
        movl    $0x700, 0x350(%ebx)
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    $(ticked - 0xf0000), TICK_IRQ * 4
        movw    $0xf000, TICK_IRQ * 4 + 2
        write   0x20, 0x11
        write   0x21, TICK_IRQ
        write   0x21, 0x04
        write   0x21, 0x01
        write   0x21, 0xfe
        write   0x43, 0x36
        write   0x40, 0xff
        write   0x40, 0xff

        movw    $(greeting - 0xf0000), %si
1:      movb    %cs:(%si), %al
        incw    %si
        testb   %al, %al
        jz      wait
        movw    $COM1, %dx
        outb    %al, %dx
        jmp     1b

wait:   .if     MODE == 2
        jmp     off
        .endif
        sti
        hlt
        movw    $(COM1 + 5), %dx        # has anything arrived?
        inb     %dx, %al
        testb   $1, %al
        jz      1f
        movw    $COM1, %dx
        inb     %dx, %al
        movb    $'?', %al
        outb    %al, %dx
1:      .if     MODE == 0
        movw    $STATUS, %dx
        inw     %dx, %ax
        testb   $1, %ah
        jnz     off
        .endif
        jmp     wait

off:    movw    $CONTROL, %dx
        movw    $0x2000, %ax
        outw    %ax, %dx
1:      hlt
        jmp     1b

ticked: pushw   %ax
        write   0x20, 0x20
        popw    %ax
        iret

        .balign 8
gdt:    .quad   0
        .quad   0x00cf92000000ffff
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
greeting:
        .asciz  "up\r\n"

        .org    0xff0                   # the reset vector
        ljmp    $0xf000, $(_start - 0xf0000)
        .org    0x1000
